// The page: what is chosen, when to ask the API again, and what to say when it does not answer.

const KEPT = 320; // seconds of forecasts; the longest view has 300
const NEWEST = 300; // the most that one request returns
const OUTCOMES_S = 18; // after which a forecast's outcomes are known, the longest horizon's included
const SLOWEST_MS = 30000; // longest wait between attempts while the API does not answer
const ASKED_MAX_MS = 600000; // longest wait that the API may ask for
const OVERTAKEN = Symbol("overtaken");
const state = {
  symbol: null,
  horizon: null,
  minutes: 2,
  span: "hour",
  entries: [],
  latest: null,
  accuracy: null,
  models: null,
  round: 0,
  turn: 0, // of the poll that counts
  wait: 1000,
  answered: 0,
  asked: null, // the receipt that a link asks for
  timer: 0,
};

// Forecasts that are new, or whose outcomes have become known, replace those kept.
function keep(history) {
  for (const entry of history.toReversed()) {
    const place = state.entries.findLastIndex(kept => kept.timestamp <= entry.timestamp);
    if (state.entries[place]?.id === entry.id) state.entries[place] = entry;
    else state.entries.splice(place + 1, 0, entry);
  }
  const oldest = state.entries.at(-1)?.timestamp - 1000 * KEPT;
  state.entries = state.entries.slice(-KEPT).filter(entry => entry.timestamp > oldest);
}

// Only what the page does not have is asked for. After a pause the outcomes that came meanwhile are missing as well.
async function pollLatest(symbol, ask) {
  const away = Math.max(0, Date.now() - state.answered) / 1000; // a machine's sleep counts
  const isBrief = state.round % 4 && away < 4;
  const missing = !state.entries.length ? NEWEST : away + (isBrief ? 2 : OUTCOMES_S);
  const latest = await ask(
    `predictions/${encodeURIComponent(symbol)}?history=${Math.min(NEWEST, Math.ceil(missing))}&outcomes=true`,
  );
  if (!latest.horizons || !latest.history) throw new ApiError("The answer is not the API's", 200);
  const restarted = state.latest && latest.timestamp < state.latest.timestamp - 60000; // a recording that began again
  if (restarted) state.entries = [];
  state.answered = Date.now();
  state.latest = latest;
  state.horizon ??= String(latest.horizon_s);
  keep(latest.history);
  showSelection();
  showNow();
  openAsked();
}

function showNow() {
  if (!state.latest) return;
  at("shown").hidden = false;
  showLatest(state.latest);
  drawPath(state.entries, state.latest, state.horizon, state.minutes);
}

function readHealth(health) {
  showHealth(health);
  const symbols = feedsOf(health).map(([symbol]) => symbol);
  if (symbols.length && !symbols.includes(state.symbol)) choose(symbols[0]);
  showSymbols(symbols);
}

function showSymbols(symbols) {
  const nav = at("symbols");
  if ([...nav.children].map(button => button.textContent).join() !== symbols.join()) {
    nav.replaceChildren(
      ...symbols.map(symbol => {
        const button = element("button", symbol);
        button.type = "button";
        button.onclick = () => {
          choose(symbol);
          restart();
        };
        return button;
      }),
    );
  }
  nav.hidden = symbols.length < 2;
  showSelection();
}

function showSelection() {
  for (const button of at("symbols").children) {
    if (button.textContent === state.symbol) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
  }
  for (const radio of document.querySelectorAll("[name=horizon]")) radio.checked = radio.value === state.horizon;
}

// Nothing of the symbol before is left on the page.
function choose(symbol) {
  if (symbol === state.symbol) return;
  Object.assign(state, { symbol, entries: [], latest: null, accuracy: null, round: 0 });
  at("shown").hidden = true;
  at("loading").hidden = false;
  document.title = "tickcast";
  put("accuracy-problem", "");
  put("data-problem", "");
  if (state.horizon) showScores();
  showDays([]);
  showSelection();
}

// A part of the page that cannot be read says so in its place, and stops nothing else.
async function part(asking, problemAt, show) {
  try {
    const found = await asking;
    put(problemAt, "");
    show(found);
  } catch (error) {
    if (!error.status || error.status === 403 || error.status === 429) throw error;
    put(problemAt, sentence(error.message));
  }
}

// The answer to a request of a poll. A poll that another one has overtaken, such as for another symbol or with another
// key, ends here: it shows nothing, and does not count.
async function answerFor(turn, path) {
  const [answer] = await Promise.allSettled([get(path)]);
  if (turn !== state.turn) throw OVERTAKEN;
  if (answer.status === "rejected") throw answer.reason;
  return answer.value;
}

function readAccuracy(found) {
  const isNew = !state.accuracy || found.summary?.scored_ms !== state.accuracy.summary?.scored_ms;
  state.accuracy = found;
  isNew ? showScores() : showScored();
}

function readModels(found) {
  state.models = found;
  showModels();
}

async function poll(turn) {
  const isTurn = every => state.round % every === 0;
  const ask = path => answerFor(turn, path);
  if (isTurn(5) || !state.symbol) readHealth(await ask("health"));
  at("ask").hidden = Boolean(key());
  if (!key() || !state.symbol) {
    at("shown").hidden = at("loading").hidden = true;
    return;
  }
  await pollLatest(state.symbol, ask);
  notice("");
  at("loading").hidden = true;
  const symbol = encodeURIComponent(state.symbol);
  if (isTurn(5)) showLatency(state.entries);
  if (isTurn(10)) await part(ask(`accuracy/${symbol}`), "accuracy-problem", readAccuracy);
  if (isTurn(60)) await part(ask("models"), "model-problem", readModels);
  if (isTurn(60)) await part(ask(`data/${symbol}`), "data-problem", showData);
}

// While the API does not answer, what is on the page is old and shown so.
function notice(text, name = "notice bad") {
  put("notice", text, name);
  at("main").classList.toggle("old", Boolean(text));
}

function explain(error) {
  const again = `Next attempt in ${Math.round(state.wait / 1000)} s.`;
  const since = state.latest ? ` The figures are those of ${clock(state.latest.as_of)}.` : "";
  if (error.status === 403) {
    const isSigned = /authentication token|signature/i.test(error.message);
    askForKey(
      isSigned
        ? "This API takes signed requests (IAM), which a page cannot make."
        : `The API refused this key: ${error.message}`,
    );
    return;
  }
  at("loading").hidden = true;
  if (!(error instanceof ApiError)) notice(`The page cannot show an answer: ${error.message}. ${again}${since}`);
  else if (error.status === 429) notice(`Too many requests with this key. ${again}${since}`);
  else notice(`${sentence(error.message)} ${again}${since}`, error.status === 404 ? "notice" : "notice bad");
}

function askForKey(why) {
  setKey("");
  notice("");
  put("asking", why, "bad");
  at("ask").hidden = false;
  at("shown").hidden = at("loading").hidden = true;
  at("key").focus();
}

async function run() {
  clearTimeout(state.timer);
  if (document.hidden) return; // continued when the page is seen again
  const turn = ++state.turn;
  try {
    await poll(turn);
    state.round++;
    state.wait = 1000;
  } catch (error) {
    if (error === OVERTAKEN) return;
    if (!(error instanceof ApiError)) console.error(error);
    if (error.status !== 429) state.round = 0; // the next attempt begins with the health, which knows the symbols
    state.wait = error.after_s
      ? Math.min(Math.max(1000, 1000 * error.after_s), ASKED_MAX_MS)
      : Math.min(2 * state.wait, SLOWEST_MS);
    explain(error);
  }
  state.timer = setTimeout(run, state.wait);
}

function restart() {
  state.round = 0;
  state.wait = 1000;
  state.turn++; // also while the page is hidden
  run();
}

// The receipt that a link asks for, as soon as there is a key.
function openAsked() {
  openReceipt(state.asked);
  state.asked = null;
}

function follow() {
  const asked = takeFragment();
  const symbol = asked.symbol || (asked.receipt && symbolOf(asked.receipt));
  if (symbol) choose(symbol.toUpperCase());
  if ([...document.querySelectorAll("[name=horizon]")].some(radio => radio.value === asked.horizon))
    state.horizon = asked.horizon;
  restart();
  state.asked = asked.receipt || null;
  if (key()) openAsked();
}

function onChoice(name, take) {
  for (const radio of document.querySelectorAll(`[name=${name}]`)) radio.onchange = () => take(radio.value);
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  at("theme").value = theme;
  theme ? localStorage.setItem("theme", theme) : localStorage.removeItem("theme");
  recolor();
}

function recolor() {
  forgetColors();
  if (!state.latest) return;
  showNow();
  showLatency(state.entries);
  if (state.accuracy) showScores();
}

onChoice("horizon", horizon => {
  state.horizon = horizon;
  showNow();
  if (state.accuracy) showScores();
});
onChoice("minutes", minutes => {
  state.minutes = Number(minutes);
  showNow();
});
onChoice("span", span => {
  state.span = span;
  if (state.accuracy) showScores();
});
at("theme").onchange = event => setTheme(event.target.value);
at("path").onkeydown = chooseByKey;
at("open-receipt").onclick = () => openReceipt(state.latest.id);
at("ask").onsubmit = event => {
  event.preventDefault();
  setKey(at("key").value.trim());
  at("key").value = "";
  restart();
};
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolor);
addEventListener("hashchange", () => location.hash.includes("=") && follow());
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return clearTimeout(state.timer);
  if (Date.now() - state.answered > PATIENCE_MS) at("main").classList.add("old"); // until the first answer
  run();
});
if (matchMedia("(max-width: 40rem)").matches) {
  state.minutes = 1;
  document.querySelector("[name=minutes]").checked = true;
}
put("zone", `Times of day are those of ${Intl.DateTimeFormat().resolvedOptions().timeZone}.`);
setTheme(localStorage.getItem("theme") || "");
follow();
