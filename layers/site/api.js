// The API below this page's address, and the key for it: from the address's fragment, which no server sees, or typed.

const root = location.href.split(/[?#]/)[0].replace(/\/?$/, "/");
const PATIENCE_MS = 8000;

const key = () => sessionStorage.getItem("key") || "";
const setKey = text => (text ? sessionStorage.setItem("key", text) : sessionStorage.removeItem("key"));

// What the fragment asks for: `key`, `symbol`, `horizon`, `receipt` (an id). It is removed from the address at once.
function takeFragment() {
  const asked = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  if (!["key", "symbol", "horizon", "receipt"].some(name => name in asked)) return {};
  history.replaceState(null, "", location.pathname + location.search);
  if (asked.key) setKey(asked.key.trim());
  return asked;
}

class ApiError extends Error {
  // `status` is 0 where there was no answer; `after_s` says when to try again, if the API does.
  constructor(message, status, after_s = null) {
    super(message);
    Object.assign(this, { status, after_s });
  }
}

function noAnswer(error) {
  const isLate = error.name === "TimeoutError";
  return new ApiError(isLate ? `The API has not answered for ${PATIENCE_MS / 1000} s` : "The API does not answer", 0);
}

async function get(path) {
  let answer, body;
  // A browser would not send it, and say no more than that.
  if (!/^[ -~]*$/.test(key())) throw new ApiError("it has characters that no key has", 403);
  try {
    const headers = key() ? { "x-api-key": key() } : {};
    answer = await fetch(root + path, { headers, signal: AbortSignal.timeout(PATIENCE_MS) });
  } catch (error) {
    throw noAnswer(error);
  }
  try {
    body = Object(await answer.json());
  } catch (error) {
    if (error.name !== "SyntaxError") throw noAnswer(error);
    throw new ApiError(`The answer is not the API's (status ${answer.status})`, answer.status);
  }
  if (answer.ok || body.services) return body; // an unhealthy system answers 503 with its health
  const after_s = Number(answer.headers.get("retry-after")) || null;
  throw new ApiError(body.detail || body.title || body.message || `Status ${answer.status}`, answer.status, after_s);
}
