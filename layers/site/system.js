// The models, the condition of the data by day.

const cardOf = id => state.models?.models.find(card => card.model_id === id);
const day = text => new Date(text).toLocaleString("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
const badge = (text, kind) => element("span", text, `badge ${kind}`);

function showModels() {
  const { current, models, total } = state.models;
  if (!current) return at("model").replaceChildren(element("p", "No model is active: every answer is a fallback until one is trained.", "soft"));
  const card = cardOf(current.model_id);
  const parts = [element("p", [element("strong", current.model_id), " ", card?.provisional ? badge("provisional", "warn") : badge("proven", "good")]),
    element("p", `Active since ${day(current.since)}${current.by ? `: ${current.by}` : ""}.`, "small soft")];
  if (card) parts.push(...cardParts(card));
  const others = models.filter(it => it.model_id !== current.model_id);
  if (others.length) {
    const list = element("details", element("summary", `Other models (${count(total - 1)})`));
    list.append(...others.slice(0, 8).map(it => element("p", [element("strong", it.model_id), ` ${it.problem || it.gate?.sentence || it.reason || ""}`], "small")));
    parts.push(list);
  }
  at("model").replaceChildren(...parts);
  showChallenger();
}

// The main figures of a card, and what the gate says of the model.
function cardParts(card) {
  const parts = [], words = [card.gate?.sentence, card.proof?.sentence].filter(Boolean);
  if (card.problem) parts.push(element("p", card.problem, "small bad"));
  if (!words.length) words.push("The gate has not evaluated it: there was no other model to compare it with, or it was made active by hand.");
  parts.push(...words.map(text => element("p", text, "small")));
  if (card.data) parts.push(element("p", `Trained ${day(card.trained_at)} on ${plural(card.rows, "row")} of ${(card.data.markets || []).join(", ")}${card.reason ? ` (${card.reason})` : ""}.`, "small soft"));
  const rows = Object.entries(card.test || {}).map(([horizon, it]) => [`${horizon} s`, number(it.skill, 3), share(it.direction), count(it.rows)]);
  if (rows.length) parts.push(scrolled(table(document.createElement("table"), ["horizon", "skill", "direction right", "rows"], rows, "On the rows that training held out"), "Figures of the model"));
  return parts;
}

function showChallenger() {
  const id = state.models?.current?.challenger, live = state.accuracy?.summary?.[state.span]?.challenger, named = id || live?.model_id, card = cardOf(named);
  if (!named) return at("challenger").replaceChildren(element("p", "No model runs in the champion's shadow. A challenger that passes the gate's first look does, until it is decided on again.", "soft small"));
  const parts = [element("p", [element("strong", named), " ", badge("in shadow", "")])];
  if (card?.gate?.sentence) parts.push(element("p", card.gate.sentence, "small"));
  const rows = Object.entries(live?.horizons || {}).map(([horizon, it]) => [`${horizon} s`, count(it.count), skill(it.skill), skill(it.skill_vs_champion)]);
  parts.push(rows.length ? scrolled(table(document.createElement("table"), ["horizon", "outcomes", "skill (95 %)", "against the champion (95 %)"], rows, `On live outcomes of the last ${state.span}`), "Figures of the challenger")
    : element("p", "No outcomes of its forecasts yet.", "small soft"));
  at("challenger").replaceChildren(...parts);
}

const CONDITIONS = { available: "good", repaired: "good", degraded: "warn", missing: "bad" };

function gapsOf(it) {
  const gaps = [...it.gaps.map(gap => ({ ...gap, what: `${plural(gap.trades, "trade")} ${gap.status}` })), ...it.quotes.gaps.map(gap => ({ ...gap, what: "no quotes" }))];
  if (!gaps.length) return [];
  const items = gaps.sort((a, b) => a.from_us - b.from_us).map(gap => element("p", `${utc(gap.from_us)} to ${utc(gap.to_us)}: ${gap.what}, ${gap.cause}`, "small"));
  if (it.gaps_left_out) items.push(element("p", `and ${plural(it.gaps_left_out, "smaller gap")} in trades`, "small"));
  return [element("details", [element("summary", plural(gaps.length, "gap")), ...items])];
}

function showData(found) {
  at("days").replaceChildren(...found.days.slice(0, 30).map(it => {
    const date = new Date(`${it.day}T00:00Z`).toLocaleDateString("en-GB", { day: "numeric", month: "short", timeZone: "UTC" });
    return element("li", [element("strong", it.over ? date : "today"), document.createElement("br"), it.condition], CONDITIONS[it.condition]);
  }));
  table(at("data"), ["day (UTC)", "condition", "hours with data", "trades missing", "fetched later", "withheld", "seconds with quotes", "why"], found.days.map(it => [
    it.day + (it.over ? "" : " (today)"), element("span", it.condition, CONDITIONS[it.condition]), `${it.hours.expected - it.hours.without.length} of ${it.hours.expected}`, count(it.trades.missing),
    count(it.trades.repaired), count(it.trades.withheld), share(it.quotes.coverage), element("td", [it.why.join("; "), ...gapsOf(it)], "words")]));
  put("reported", `Reported at ${clock(found.reported)}, the newest ${plural(found.days.length, "day")} of ${found.total}, in UTC.`);
}
