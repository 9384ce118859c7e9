// The health of the parts, the models, and the condition of the data by day.

const cardOf = id => state.models?.models.find(card => card.model_id === id);
const badge = (text, kind) => element("span", text, `badge ${kind}`);

function showModels() {
  const { current, models, total } = state.models;
  showChallenger();
  if (!current) {
    fill(at("model"), element("p", "No model is active: every answer is a fallback until one is trained.", "soft"));
    return;
  }
  const card = cardOf(current.model_id);
  const standing = card?.provisional ? badge("provisional", "warn") : badge("proven", "good");
  const by = current.by ? `: ${current.by}` : "";
  const parts = [
    element("p", [element("strong", current.model_id), " ", card ? standing : ""]),
    element("p", `Active since ${minute(current.since)}${by}.`, "small soft"),
  ];
  if (card) parts.push(...cardParts(card));
  const others = models.filter(it => it.model_id !== current.model_id).slice(0, 8);
  if (others.length) {
    const why = it => it.problem || it.gate?.sentence || it.reason || "";
    const lines = others.map(it => element("p", [element("strong", it.model_id), ` ${why(it)}`], "small"));
    parts.push(element("details", [element("summary", `Other models (${count(total - 1)})`), ...lines]));
  }
  fill(at("model"), ...parts);
}

// The main figures of a card, and what the gate says of the model.
function cardParts(card) {
  const parts = card.problem ? [element("p", card.problem, "small bad")] : [];
  const words = [
    card.gate?.sentence && `The gate's decision on it as a challenger: ${card.gate.sentence}`,
    card.proof?.sentence,
  ].filter(Boolean);
  if (!words.length) words.push("The gate has not evaluated it: it is a first model, or was made active by hand.");
  parts.push(...words.map(text => element("p", text, "small")));
  if (card.data) {
    const on = `${plural(card.rows, "row")} of ${card.data.markets.join(", ")}`;
    const why = card.reason ? ` (${card.reason})` : "";
    parts.push(element("p", `Trained ${minute(card.trained_at)} on ${on}${why}.`, "small soft"));
  }
  const test = Object.entries(card.test || {});
  const rows = test.map(([horizon, it]) => [`${horizon} s`, number(it.skill, 3), share(it.direction), count(it.rows)]);
  const titles = ["horizon", "skill", "direction right", "rows"];
  if (rows.length) {
    parts.push(scrolled(newTable(titles, rows, "On the rows that training held out"), "Figures of the model"));
  }
  return parts;
}

function showChallenger() {
  const live = state.accuracy?.summary?.[state.span]?.challenger;
  const id = state.models?.current?.challenger || live?.model_id;
  if (!id) {
    const none =
      "No model runs in shadow. A challenger that may become better than the champion does, until the gate decides.";
    fill(at("challenger"), element("p", none, "soft small"));
    return;
  }
  const parts = [element("p", [element("strong", id), " ", badge("in shadow", "")])];
  const sentence = cardOf(id)?.gate?.sentence;
  if (sentence) parts.push(element("p", sentence, "small"));
  const horizons = live?.model_id === id ? Object.entries(live.horizons) : [];
  const rows = horizons.map(([horizon, it]) => [
    `${horizon} s`,
    count(it.count),
    skill(it.skill),
    skill(it.skill_vs_champion),
  ]);
  const titles = ["horizon", "outcomes", "skill (95\u00a0%)", "against the champion (95\u00a0%)"];
  const caption = `On live outcomes of the last ${state.span}`;
  parts.push(
    rows.length
      ? scrolled(newTable(titles, rows, caption), "Figures of the challenger")
      : element("p", "No outcomes of its forecasts yet.", "small soft"),
  );
  fill(at("challenger"), ...parts);
}

const CONDITIONS = { available: "good", repaired: "good", degraded: "warn", missing: "bad" };

function gapsOf(it) {
  const trades = it.gaps.map(gap => ({ ...gap, what: `${plural(gap.trades, "trade")} ${gap.status}` }));
  const quotes = it.quotes.gaps.map(gap => ({ ...gap, what: "no quotes" }));
  const gaps = [...trades, ...quotes].sort((a, b) => a.from_us - b.from_us);
  if (!gaps.length) return [];
  const lines = gaps.map(gap => `${utc(gap.from_us)} to ${utc(gap.to_us)}: ${gap.what}, ${gap.cause}`);
  if (it.gaps_left_out) lines.push(`and ${plural(it.gaps_left_out, "smaller gap")} in trades`);
  const summary = element("summary", plural(gaps.length, "gap"));
  return [element("details", [summary, ...lines.map(text => element("p", text, "small"))])];
}

function showData(found) {
  showDays(found.days);
  const newest = `the newest ${plural(found.days.length, "day")} of ${found.total}, in UTC`;
  put("reported", `Reported at ${clock(found.reported)}, ${newest}.`);
}

function showDays(days) {
  put("reported", "");
  const shown = days.slice(0, 30).map(it => {
    const name = element("strong", it.over ? date(`${it.day}T00:00Z`, "UTC") : "today");
    return element("li", [name, document.createElement("br"), it.condition], CONDITIONS[it.condition]);
  });
  fill(at("days"), ...shown);
  const rows = days.map(it => [
    it.day + (it.over ? "" : " (today)"),
    element("span", it.condition, CONDITIONS[it.condition]),
    `${it.hours.expected - it.hours.without.length} of ${it.hours.expected}`,
    count(it.trades.missing),
    count(it.trades.repaired),
    count(it.trades.withheld),
    share(it.quotes.coverage),
    element("td", [it.why.join("; "), ...gapsOf(it)], "words"),
  ]);
  const titles = [
    "day (UTC)",
    "condition",
    "hours with data",
    "trades missing",
    "fetched later",
    "withheld",
    "seconds with quotes",
    "why",
  ];
  table(at("data"), titles, rows);
  at("days-more").hidden = !rows.length;
}

// The feeds of a health report, as [symbol, service].
const feedsOf = health =>
  Object.entries(health.services)
    .filter(([name]) => name.startsWith("feed:"))
    .map(([name, it]) => [name.slice("feed:".length), it]);

function showHealth(health) {
  const all = Object.entries(health.services);
  const failed = all.filter(([, it]) => it.ok === false);
  const isWell = health.status === "ok";
  const names = failed.length > 1 ? plural(failed.length, "part") : failed[0]?.[0] || "starting";
  put("environment", health.environment, "badge");
  put("status", isWell ? "● all well" : `▲ ${health.status}: ${names}`, `badge ${isWell ? "good" : "bad"}`);
  put(
    "source",
    feedsOf(health)
      .map(([, it]) => SOURCES[it.source])
      .find(Boolean) || "",
    "badge warn",
  );
  const others = all.filter(([, it]) => it.ok !== false);
  fill(at("health"), ...[...failed, ...others].map(serviceLine));
  at("health-part").hidden = false;
}

function serviceLine([name, it]) {
  const [mark, kind] = it.ok ? ["● ", "good"] : it.ok === false ? ["▲ ", "bad"] : ["○ ", "soft"];
  const missing = it.missing_trades ? `${plural(it.missing_trades, "trade")} missing` : "";
  const age = known(it.age_s) && !it.why ? `${number(it.age_s, 1)} s ago` : "";
  const words = [it.why, it.note, missing, age].filter(Boolean).join("; ");
  const more = element("span", words ? ` – ${words}` : "", "soft");
  return element("li", [element("span", mark, kind), name, more], it.ok === false ? "fault" : "");
}
