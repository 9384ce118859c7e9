// The API below this page's address, and the key for it: from the address's fragment, which no server sees, or typed.

const root = location.href.split(/[?#]/)[0].replace(/\/?$/, "/");
const PATIENCE_MS = 8000;

const key = () => sessionStorage.getItem("key") || "";
const setKey = text => text ? sessionStorage.setItem("key", text) : sessionStorage.removeItem("key");

// What the fragment asks for: `key`, `symbol`, `horizon`, `receipt` (an id). It is removed from the address at once.
function takeFragment() {
  const asked = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  if (!["key", "symbol", "horizon", "receipt"].some(name => name in asked)) return {};
  history.replaceState(null, "", location.pathname + location.search);
  if (asked.key) setKey(asked.key.trim());
  return asked;
}

// Errors have `status` (0: no answer) and `after_s`, if the API says when to try again.
async function get(path) {
  let answer, body;
  try {
    answer = await fetch(root + path, { headers: key() ? { "x-api-key": key() } : {}, signal: AbortSignal.timeout(PATIENCE_MS) });
  } catch (error) {
    throw Object.assign(new Error(error.name === "TimeoutError" ? `The API has not answered for ${PATIENCE_MS / 1000} s` : "The API does not answer"), { status: 0 });
  }
  try {
    body = await answer.json();
  } catch {
    throw Object.assign(new Error(`The answer is not the API's (status ${answer.status})`), { status: answer.status });
  }
  if (answer.ok || body.services) return body;  // an unhealthy system answers 503 with its health
  const after = Number(answer.headers.get("retry-after"));
  throw Object.assign(new Error(body.detail || body.title || body.message || `Status ${answer.status}`), { status: answer.status, after_s: after || null });
}
