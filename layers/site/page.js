// The page: what is chosen, when to ask the API again, and what to say when it does not answer.

const KEPT = 320;  // seconds of forecasts; the longest view has 300
const NEWEST = 300;  // the most that one request returns
const OUTCOMES_S = 18;  // after which a forecast's outcomes are known, the longest horizon's included
const SLOWEST_MS = 30000;  // longest wait between attempts while the API does not answer
const ASKING = at("asking").textContent;
const state = { symbol: null, horizon: null, minutes: 2, span: "hour", entries: [], latest: null, health: null, accuracy: null, models: null,
  round: 0, wait: 1000, answered: 0, timer: 0 };

function showLatest(it) {
  const answer = { ...it, ...it.horizons[state.horizon] }, move = answer.expected_move_bp, isFallback = it.source === "fallback";
  document.title = `${price(it.basis_price)} ${it.symbol} – tickcast`;
  put("environment", it.environment, "badge");
  put("fallback", isFallback ? fallback(it) : "");
  put("announced", isFallback ? `Forecasts of ${it.symbol} are fallbacks: ${it.reason.replaceAll("_", " ")}` : "");
  put("market", `${it.symbol}, mid price`);
  put("mid", price(it.basis_price));
  put("asof", `as of ${clock(it.timestamp)}, ${seconds(it.age_ms.claim)} ago` + (it.quiet ? `; the market has been quiet for ${seconds(it.age_ms.tick)}` : ""));
  put("ahead", `In ${state.horizon} s`);
  put("direction", known(move) ? `${direction(move)} ${bp(Math.abs(move))}` : "No forecast", `big ${!known(move) || answer.abstains ? "soft" : move > 0 ? "good" : "bad"}`);
  put("target", known(move) ? `to ${price(answer.predicted_price)} at ${clock(answer.target_time)}` : "");
  put("range", known(answer.lower) ? `80 % interval ${price(answer.lower)} … ${price(answer.upper)}` : "");
  showChances(answer);
  figures(at("figures"), {
    "Expected move from now on": signed(move), "Confidence in the direction": share(answer.confidence), "Noise up to": bp(answer.noise_bp), "Usual move": bp(answer.scale_bp),
    "Round trip costs": bp(answer.cost_bp), "of that spread": bp(answer.spread_bp, 3), "Edge after cost": signed(answer.edge_bp),
    "Worth trading": !known(answer.worth_trading) ? "not known" : answer.worth_trading ? "yes" : "no",
    "For": clock(answer.target_time ?? it.as_of + 1000 * state.horizon), "Newest tick": known(it.age_ms.tick) ? `${seconds(it.age_ms.tick)} old` : "not known",
    "Latency": known(it.latency_ms) ? `${it.latency_ms} ms` : "–", "Inference": known(it.inference_ms) ? `${number(it.inference_ms, 2)} ms` : "–",
    "Model": (it.model_id || "none") + (it.provisional ? " (provisional)" : ""), "Receipt": it.id,
  });
}

function showChances(it) {
  const chances = { up: it.p_up, flat: it.p_flat, down: it.p_down }, has = known(it.p_up);
  const text = has ? `up ${share(it.p_up, 0)} · no move ${share(it.p_flat, 0)} · down ${share(it.p_down, 0)}` : "not known";
  for (const bar of at("chances").children) bar.style.flexGrow = has ? chances[bar.className] : bar.className === "flat" ? 1 : 0;
  at("chances").setAttribute("aria-label", text);
  put("chances-text", text);
  put("verdict", it.source === "fallback" ? "Abstains, as every fallback does."
    : it.abstains ? `Abstains: a move this small is within the noise${known(it.noise_bp) ? `, ${bp(it.noise_bp)}` : ""}.`
    : !known(it.worth_trading) ? "Whether it is worth trading is not known without quotes."
    : it.worth_trading ? `Worth trading: it expects ${bp(it.edge_bp)} more than a round trip costs (${bp(it.cost_bp)}).`
    : `Not worth trading: a round trip costs ${bp(it.cost_bp)}.`);
}

// Forecasts that are new, or whose outcomes have become known, replace those kept.
function keep(history) {
  for (const entry of history.toReversed()) {
    const place = state.entries.findLastIndex(kept => kept.timestamp <= entry.timestamp);
    if (state.entries[place]?.id === entry.id) state.entries[place] = entry;
    else state.entries.splice(place + 1, 0, entry);
  }
  state.entries.splice(0, state.entries.length - KEPT);
}

async function pollLatest(symbol) {
  const away = (performance.now() - state.answered) / 1000;
  const missing = !state.entries.length ? NEWEST : state.round % 4 ? away + 2 : Math.max(OUTCOMES_S, away + 2);
  const latest = await get(`predictions/${encodeURIComponent(symbol)}?history=${Math.min(NEWEST, Math.ceil(missing))}&outcomes=true`);
  if (symbol !== state.symbol) return;  // another was chosen during the request
  const restarted = state.latest && latest.timestamp < state.latest.timestamp - 60000;  // a recording that began again
  if (restarted) state.entries = [];
  state.answered = performance.now();
  state.latest = latest;
  state.horizon ??= String(latest.horizon_s);
  keep(latest.history);
  showSelection();
  showNow();
}

function showNow() {
  if (!state.latest) return;
  at("shown").hidden = false;
  showLatest(state.latest);
  drawPath(state.entries, state.latest, state.horizon, state.minutes);
}

function showHealth(health) {
  state.health = health;
  const names = Object.entries(health.services), failed = names.filter(([, it]) => it.ok === false);
  put("environment", health.environment, "badge");
  put("status", health.status === "ok" ? "● all well" : `▲ ${health.status}: ${failed.map(([name]) => name).join(", ") || "starting"}`, `badge ${health.status === "ok" ? "good" : "bad"}`);
  const order = ([, a], [, b]) => (a.ok === false ? 0 : 1) - (b.ok === false ? 0 : 1);
  at("health").replaceChildren(...names.toSorted(order).map(([name, it]) => {
    const mark = element("span", it.ok ? "● " : it.ok === false ? "▲ " : "○ ", it.ok ? "good" : it.ok === false ? "bad" : "soft");
    const more = [it.why, it.note, known(it.age_s) && !it.why ? `${number(it.age_s, 1)} s ago` : ""].filter(Boolean).join("; ");
    return element("li", [mark, name, element("span", more ? ` – ${more}` : "", "soft")], it.ok === false ? "fault" : "");
  }));
  at("health-part").hidden = false;
  const symbols = names.filter(([name]) => name.startsWith("feed:")).map(([name]) => name.slice(5));
  put("source", SOURCES[symbols.map(symbol => health.services[`feed:${symbol}`].source).find(source => SOURCES[source])] || "", "badge warn");
  if (symbols.length && !symbols.includes(state.symbol)) choose(symbols[0]);
  showSymbols(symbols);
}

function showSymbols(symbols) {
  const nav = at("symbols");
  if ([...nav.children].map(button => button.textContent).join() !== symbols.join()) {
    nav.replaceChildren(...symbols.map(symbol => {
      const button = element("button", symbol);
      button.type = "button";
      button.onclick = () => { choose(symbol); restart(); };
      return button;
    }));
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

function choose(symbol) {
  if (symbol === state.symbol) return;
  Object.assign(state, { symbol, entries: [], latest: null, accuracy: null });
  at("shown").hidden = true;
  at("loading").hidden = false;
  showSelection();
}

// A part of the page that cannot be read says so in its place, and stops nothing else.
async function part(path, show, problemAt) {
  const symbol = state.symbol;
  try {
    const found = await get(path);
    if (symbol === state.symbol) show(found);
  } catch (error) {
    if (!error.status || [403, 429].includes(error.status)) throw error;
    if (symbol === state.symbol) put(problemAt, error.message);
  }
}

async function poll() {
  if (state.round % 5 === 0 || !state.symbol) showHealth(await get("health"));
  at("ask").hidden = Boolean(key());
  if (!key() || !state.symbol) {
    at("shown").hidden = at("loading").hidden = true;
    return notice("");
  }
  put("asking", ASKING, "soft");
  await pollLatest(state.symbol);
  notice("");
  at("loading").hidden = true;
  const symbol = encodeURIComponent(state.symbol);
  if (state.round % 5 === 0) showLatency(state.entries);
  if (state.round % 10 === 0) await part(`accuracy/${symbol}`, found => { state.accuracy = found; showScores(); }, "scored");
  if (state.round % 60 === 0) await part("models", found => { put("model-problem", ""); state.models = found; showModels(); }, "model-problem");
  if (state.round % 60 === 0) await part(`data/${symbol}`, showData, "reported");
}

// While the API does not answer, what is on the page is old and shown so.
function notice(text, name = "notice bad") {
  put("notice", text, name);
  at("main").classList.toggle("old", Boolean(text));
}

function explain(error) {
  const again = `Next attempt in ${Math.round(state.wait / 1000)} s.`, since = state.latest ? ` The figures are those of ${clock(state.latest.as_of)}.` : "";
  const what = error.message.replace(/\.$/, "");
  if (error.status === 403) {
    setKey("");
    at("ask").hidden = false;
    at("shown").hidden = at("loading").hidden = true;
    put("asking", `The API refused this key: ${what}.`, "bad");
    at("key").focus();
    return notice("");
  }
  if (error.status === 404) {
    at("loading").hidden = true;
    return notice(`No forecast yet: ${what}. ${again}`, "notice");
  }
  at("loading").hidden = Boolean(state.latest);
  notice((error.status === 429 ? `Too many requests with this key: ${what}.` : `${what}.`) + ` ${again}${since}`);
}

async function run() {
  clearTimeout(state.timer);
  if (document.hidden) return;  // continued when the page is seen again
  try {
    await poll();
    state.round++;
    state.wait = 1000;
  } catch (error) {
    if (!("status" in error)) throw error;
    state.wait = error.after_s ? 1000 * error.after_s : Math.min(2 * state.wait, SLOWEST_MS);
    explain(error);
  }
  clearTimeout(state.timer);
  state.timer = setTimeout(run, state.wait);
}

function restart() {
  state.round = 0;
  state.wait = 1000;
  clearTimeout(state.timer);
  run();
}

function follow() {
  const asked = takeFragment();
  if (asked.symbol) choose(asked.symbol.toUpperCase());
  if ([...document.querySelectorAll("[name=horizon]")].some(radio => radio.value === asked.horizon)) state.horizon = asked.horizon;
  restart();
  if (asked.receipt && key()) openReceipt(asked.receipt);
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

onChoice("horizon", horizon => { state.horizon = horizon; showNow(); if (state.accuracy) showScores(); });
onChoice("minutes", minutes => { state.minutes = Number(minutes); showNow(); });
onChoice("span", span => { state.span = span; if (state.accuracy) showScores(); });
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
document.addEventListener("visibilitychange", () => document.hidden ? clearTimeout(state.timer) : run());
if (matchMedia("(max-width: 40rem)").matches) {
  state.minutes = 1;
  document.querySelector("[name=minutes]").checked = true;
}
put("zone", `Times of day are those of ${Intl.DateTimeFormat().resolvedOptions().timeZone}.`);
setTheme(localStorage.getItem("theme") || "");
follow();
