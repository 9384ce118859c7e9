"use strict";
const MINUTES = 5, KEPT = MINUTES * 60;
const SLOWEST_MS = 30000;  // longest wait between attempts while the API does not answer
const root = location.href.split(/[?#]/)[0].replace(/\/?$/, "/");
const at = id => document.getElementById(id);
const state = { symbol: null, horizon: "2", shown: [], wait: 1000, round: 0, chart: null };

async function get(path) {
  const key = sessionStorage.getItem("key");
  const answer = await fetch(root + path, { headers: key ? { "x-api-key": key } : {}, signal: AbortSignal.timeout(5000) });
  const body = await answer.json();
  if (!answer.ok && !body.services) throw Object.assign(new Error(body.detail || body.title), { status: answer.status });
  return body;
}

const known = value => value !== null && value !== undefined;
const number = (value, digits) => known(value) ? value.toFixed(digits) : "–";
const seconds = ms => known(ms) ? (ms / 1000).toFixed(1) : "–";
const bp = value => known(value) ? value.toFixed(2) + " bp" : "–";
const signed = value => known(value) && value > 0 ? "+" + bp(value) : bp(value);
const clock = second => new Date(1000 * second).toLocaleTimeString([], { hour12: false });
const share = value => known(value) ? (100 * value).toFixed(1) + " %" : "–";
const price = value => known(value)
  ? value.toLocaleString("en", { minimumFractionDigits: 2, maximumFractionDigits: value < 10 ? 6 : 2 }) : "–";
const skill = it => !it ? "–" : it.value.toFixed(3) + (known(it.low) ? ` (${it.low.toFixed(2)} … ${it.high.toFixed(2)})` : "");

function element(tag, text, name) {
  const made = document.createElement(tag);
  made.textContent = text;
  if (name) made.className = name;
  return made;
}

// While the API does not answer, the values on the page are old and shown dimmed.
function notice(text) {
  at("notice").textContent = text;
  at("notice").hidden = !text;
  at("main").classList.toggle("old", Boolean(text));
}

function showLatest(it) {
  const isFallback = it.source === "fallback", move = it.expected_move_bp;
  at("environment").textContent = it.environment;
  at("direction").textContent = !known(move) ? "no prediction" : it.abstains ? "abstains" : move > 0 ? "▲ up" : "▼ down";
  at("direction").className = !known(move) || it.abstains ? "soft" : move > 0 ? "good" : "bad";
  at("price").textContent = price(it.predicted_price);
  at("why").hidden = !isFallback;
  at("why").textContent = isFallback ? `Fallback: ${it.reason.replaceAll("_", " ")}. Known up to ${seconds(it.age_ms.claim)} s ago, newest tick ${seconds(it.age_ms.tick)} s old.` : "";
  const figures = {
    "expected move from now on": signed(move), "round-trip cost": bp(it.cost_bp), "edge": signed(it.edge_bp), "noise": bp(it.noise_bp),
    "worth trading": !known(it.worth_trading) ? "–" : it.worth_trading ? "yes" : "no",
    "up / down / no move": known(it.p_flat) ? [it.p_up, it.p_down, it.p_flat].map(share).join(" / ") : "–", "confidence": share(it.confidence),
    "80 % interval": known(it.lower) ? `${price(it.lower)} … ${price(it.upper)}` : "–", "basis price": price(it.basis_price),
    "as of": clock(it.as_of / 1000), "for": `${clock(it.target_time / 1000)}, ${it.horizon_s} s later`,
    "age": `${it.age_ms.claim} ms` + (it.quiet ? `, quiet for ${seconds(it.age_ms.tick)} s` : known(it.age_ms.tick) ? `, newest tick ${it.age_ms.tick} ms` : ""),
    "model": (it.model_id || "–") + (it.provisional ? " (provisional)" : ""), "latency": number(it.latency_ms, 0) + " ms",
  };
  at("figures").replaceChildren(...Object.entries(figures).map(([name, value]) => {
    const pair = document.createElement("div");
    pair.append(element("dt", name), element("dd", value));
    return pair;
  }));
}

// A prediction is drawn at its target time, the mid at its own time, each to the second; one without a value is a gap.
function rows(predictions, horizon) {
  const bySecond = new Map();
  const row = time => bySecond.get(time) || bySecond.set(time, {}).get(time);
  for (const it of predictions) {
    row(Math.round(it.timestamp / 1000)).mid = it.basis_price;
    const forecast = it.horizons[horizon];
    if (forecast) row(Math.round(it.target_time / 1000)).forecast = forecast;
  }
  const times = [...bySecond.keys()].sort((a, b) => a - b), x = [], series = [[], [], [], []];
  for (let time = times[0]; time <= times[times.length - 1]; time++) {
    const { mid, forecast } = bySecond.get(time) || {};
    x.push(time);
    [mid, forecast?.predicted_price, forecast?.upper, forecast?.lower].forEach((value, i) => series[i].push(value ?? null));
  }
  return [x, ...series];
}

function draw() {
  if (!state.shown.length) return;
  const data = rows(state.shown, state.horizon), box = at("chart"), size = { width: box.clientWidth, height: 300 };
  if (state.chart) {
    if (state.chart.width !== size.width) state.chart.setSize(size);
    state.chart.setData(data);
    return;
  }
  const css = getComputedStyle(document.documentElement), color = name => css.getPropertyValue(name).trim();
  const axis = { stroke: color("--soft"), grid: { stroke: color("--line"), width: 1 }, ticks: { stroke: color("--line") } };
  const line = (label, stroke, width) => ({ label, stroke, width, points: { show: false }, value: (_, value) => price(value) });
  state.chart = new uPlot({
    ...size,
    series: [{ value: (_, second) => known(second) ? clock(second) : "–" }, line("mid", color("--price"), 1.5), line("predicted", color("--forecast"), 1.5),
      line("upper", color("--band"), 1), line("lower", color("--band"), 1)],
    bands: [{ series: [3, 4], fill: color("--band") }],
    axes: [{ ...axis, space: 90, values: (_, seconds) => seconds.map(clock) }, { ...axis, size: 84, values: (_, values) => values.map(price) }],
  }, data, box);
}

// A longer span without older outcomes is left out: its figures would be the same.
const spansOf = summary => !summary ? [] : ["hour", "day", "week"].filter((span, i, all) => !i || summary[span].first < summary[all[i - 1]].first);

function fill(table, titles, lines) {
  const row = (cells, tag) => {
    const made = document.createElement("tr");
    made.append(...cells.map(text => element(tag, text)));
    return made;
  };
  at(table).replaceChildren(row(titles, "th"), ...lines.map(cells => row(cells, "td")));
}

function showEarnings(summary) {
  const titles = ["span", "acted on from", "trades", "gross", "spread", "fees", "net (95 %)", "net is 0 at a fee of", "shuffles that earn as much"];
  const lines = spansOf(summary).flatMap(span => (summary[span].earnings?.[state.horizon] || []).filter((it, i) => it.trades || !i || !known(it.threshold_bp)).map(it => [
    span, known(it.threshold_bp) ? it.threshold_bp + " bp" : "spread and fees", it.trades, signed(it.gross_bp), bp(it.spread_bp), bp(it.fees_bp),
    signed(it.net_bp) + (it.net_ci ? ` (${it.net_ci[0].toFixed(2)} … ${it.net_ci[1].toFixed(2)})` : ""), bp(it.break_even_fee_bp), share(it.shuffled_p)]));
  at("acted").textContent = `Hypothetical: every forecast over ${state.horizon} s that did not abstain and expected that much was bought or sold at its delivery, and closed ${state.horizon} s later; mean of a trade. Net is less half the spread each time and two fees. Without size, impact and the way of an order.`;
  fill("earnings", titles, lines);
}

function showAccuracy(found) {
  showEarnings(found.summary);
  const titles = ["span", "horizon", "outcomes", "skill vs no change", "skill vs linear", "skill in hindsight", "direction", "coverage", "calibration error (floor)", "abstained, fallbacks, unresolved"];
  const lines = spansOf(found.summary).flatMap(span => Object.values(found.summary[span].horizons).map(it => {
    const unresolved = Object.values(it.unresolved).reduce((sum, count) => sum + count, 0);
    return [span, it.horizon_s + " s", it.count, skill(it.skill), skill(it.skill_vs_linear), skill(it.skill_in_hindsight), share(it.direction),
      share(it.coverage), `${share(it.calibration_error)} (${share(it.calibration_floor)})`, `${it.abstained}, ${it.fallbacks}, ${unresolved}`];
  }));
  fill("accuracy", titles, lines);
  const hour = found.summary?.hour;
  at("scored").textContent = !hour || !known(hour.first) ? "Not scored yet."
    : `Scored ${number(found.scored_age_s, 0)} s ago. A model predicted ${share(hour.availability)} of the ${Math.round((hour.to - hour.first) / 1000)} s since ${clock(hour.first / 1000)}. 95 % intervals need at least ten minutes of outcomes.`;
}

const utc = us => new Date(us / 1000).toISOString().slice(5, 23).replace("T", " ");
const CONDITIONS = { available: "good", repaired: "good", degraded: "bad", missing: "bad" };

function gapsOf(day) {
  const box = element("details", ""), list = element("ul", "");
  const gaps = [...day.gaps.map(it => ({ ...it, what: `${it.trades} trades ${it.status}` })), ...day.quotes.gaps.map(it => ({ ...it, what: "no quotes" }))];
  list.append(...gaps.sort((a, b) => a.from_us - b.from_us).map(it => element("li", `${utc(it.from_us)} … ${utc(it.to_us)}: ${it.what}, ${it.cause}`)));
  if (day.gaps_left_out) list.append(element("li", `and ${day.gaps_left_out} smaller gaps in trades`));
  box.append(element("summary", `${gaps.length} gaps`), list);
  return gaps.length ? box : "";
}

function showData(found) {
  const titles = ["day (UTC)", "condition", "hours with data", "trades missing", "fetched later", "withheld", "seconds with quotes", "why"];
  const head = document.createElement("tr");
  head.append(...titles.map(title => element("th", title)));
  at("data").replaceChildren(head, ...found.days.map(day => {
    const line = document.createElement("tr"), hours = day.hours, why = element("td", day.why.join("; "), "why");
    why.append(gapsOf(day));
    line.append(element("td", day.day + (day.over ? "" : " (today)")), element("td", day.condition, CONDITIONS[day.condition]),
      ...[`${hours.expected - hours.without.length} of ${hours.expected}`, day.trades.missing, day.trades.repaired, day.trades.withheld,
        share(day.quotes.coverage)].map(text => element("td", text)), why);
    return line;
  }));
  at("reported").textContent = `Reported at ${clock(found.reported / 1000)}; the newest ${found.days.length} of ${found.total} days. Times of gaps are UTC.`;
}

async function pollData(symbol) {
  try {
    showData(await get(`data/${encodeURIComponent(symbol)}`));
  } catch (error) {
    if (error.status !== 404) throw error;
    at("data").replaceChildren();  // not reported yet
    at("reported").textContent = error.message;
  }
  at("data-part").hidden = false;
}

function showHealth(health) {
  at("status").textContent = health.status;
  at("status").className = health.status === "ok" ? "good" : "bad";
  at("health").replaceChildren(...Object.entries(health.services).map(([name, it]) => {
    const line = element("li", "");
    line.append(element("span", it.ok ? "● " : it.ok === false ? "▲ " : "○ ", it.ok ? "good" : it.ok === false ? "bad" : "soft"),
      name, element("span", it.why ? ` – ${it.why}` : known(it.age_s) ? ` – ${it.age_s.toFixed(1)} s` : "", "soft"));
    return line;
  }));
  const symbols = Object.keys(health.services).filter(name => name.startsWith("feed:")).map(name => name.slice(5));
  at("source").textContent = { sim: "simulated market", replay: "replayed recording" }[health.services[`feed:${symbols[0]}`]?.source] || "";
  if (!symbols.includes(state.symbol)) choose(symbols[0]);
  at("symbols").replaceChildren(...symbols.map(symbol => {
    const button = element("button", symbol);
    if (symbol === state.symbol) button.setAttribute("aria-current", "true");
    button.onclick = () => { choose(symbol); showHealth(health); restart(); };
    return button;
  }));
}

function choose(symbol) {
  state.symbol = symbol;
  state.shown = [];
  state.chart?.destroy();
  state.chart = null;
}

async function poll() {
  if (state.round % 5 === 0 || !state.symbol) showHealth(await get("health"));
  const hasKey = Boolean(sessionStorage.getItem("key"));
  at("ask").hidden = hasKey;
  if (!hasKey) return at("main").hidden = at("data-part").hidden = true;
  const symbol = state.symbol, horizon = state.horizon, missing = state.shown.length ? 5 : KEPT;
  const latest = await get(`predictions/${encodeURIComponent(symbol)}?horizon=${horizon}&history=${Math.min(missing, 300)}`);
  if (symbol !== state.symbol || horizon !== state.horizon) return;  // the selection changed during the request
  const fresh = latest.history.reverse().filter(it => !state.shown.length || it.timestamp > state.shown.at(-1).timestamp);
  state.shown = state.shown.concat(fresh).slice(-KEPT);
  notice("");
  at("main").hidden = false;
  showLatest(latest);
  draw();
  if (state.round % 60 === 0) await pollData(symbol);
  if (state.round % 10 === 0) showAccuracy(await get(`accuracy/${encodeURIComponent(symbol)}`));
}

let timer;
async function run() {
  try {
    await poll();
    state.round++;
    state.wait = 1000;
  } catch (error) {
    state.wait = Math.min(2 * state.wait, SLOWEST_MS);
    notice(`${error.message.replace(/\.$/, "")}. Retrying in ${state.wait / 1000} s.`);
    if (error.status === 403) {
      sessionStorage.removeItem("key");
      at("ask").hidden = false;
      notice(error.message);
    }
  }
  clearTimeout(timer);
  timer = setTimeout(run, state.wait);
}

function restart() {
  state.round = 0;
  state.wait = 1000;
  clearTimeout(timer);
  run();
}

at("horizon").value = state.horizon;
at("horizon").onchange = event => { state.horizon = event.target.value; restart(); };
at("ask").onsubmit = event => {
  event.preventDefault();
  sessionStorage.setItem("key", at("key").value.trim());
  at("key").value = "";
  restart();
};
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { state.chart?.destroy(); state.chart = null; draw(); });
addEventListener("resize", draw);
run();
