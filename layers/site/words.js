"use strict";
// Numbers, times and states in words, and the few functions that put them on the page.

const at = id => document.getElementById(id);
const known = value => value !== null && value !== undefined;
const number = (value, digits) => (known(value) ? value.toFixed(digits).replace("-", "−") : "–");
const bp = (value, digits = 2) => (known(value) ? number(value, digits) + " bp" : "–");
const signed = (value, digits = 2) => (known(value) && value > 0 ? "+" + bp(value, digits) : bp(value, digits));
const seconds = ms => (known(ms) ? number(ms / 1000, 1) + " s" : "–");
const share = (value, digits = 1) => (known(value) ? number(100 * value, digits) + " %" : "–");
const integers = new Intl.NumberFormat("en");
const count = value => (known(value) ? integers.format(value) : "–");
const clocks = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const clock = ms => (known(ms) ? clocks.format(ms) : "–");
const date = (when, timeZone) =>
  new Date(when).toLocaleDateString("en-GB", { day: "numeric", month: "short", timeZone });
const minute = text => `${date(text)}, ${clock(new Date(text)).slice(0, 5)}`;
const sentence = text => text[0].toUpperCase() + text.slice(1).replace(/\.$/, "") + ".";
const plain = code => String(code).replaceAll("_", " ");
const utc = us => new Date(us / 1000).toISOString().slice(5, 23).replace("T", " ");
const plural = (n, one, many = one + "s") => `${count(n)} ${n === 1 ? one : many}`;
const direction = move => (!known(move) ? "no forecast" : move > 0 ? "▲ up" : move < 0 ? "▼ down" : "no move");
const prices = new Map(); // by digits
// To six digits, but no less than hundredths: a basis point of any price is seen.
const price = value => {
  if (!known(value)) return "–";
  const most = Math.min(12, Math.max(2, 5 - Math.floor(Math.log10(Math.abs(value) || 1))));
  if (!prices.has(most))
    prices.set(most, new Intl.NumberFormat("en", { minimumFractionDigits: 2, maximumFractionDigits: most }));
  return prices.get(most).format(value);
};
const interval = (low, high, digits = 2) =>
  known(low) && known(high) ? `${number(low, digits)} … ${number(high, digits)}` : "";
const skill = it => (!it ? "–" : number(it.value, 3) + (known(it.low) ? ` (${interval(it.low, it.high)})` : ""));
const withInterval = (value, ci) =>
  share(value) + (ci ? ` (${number(100 * ci[0], 0)} … ${number(100 * ci[1], 0)})` : "");

// Why an answer is a fallback. `it` is the answer.
const REASONS = {
  no_quotes: () => "the quote stream is silent or has not started",
  warming_up: () => "there is too little history for the features; that takes about ten seconds of data",
  no_model: () => "no model is active",
  model_refused: () => "the active model cannot serve, and no earlier one is loaded; Health below says why",
  outside_support: it => `features are outside the range that the model was trained on: ${it.outside.join(", ")}`,
  stale_features: it =>
    `the newest forecast is older than 5 s: the market is known up to ${seconds(it.age_ms.claim)} ago, ` +
    `and its newest tick is ${seconds(it.age_ms.tick)} old`,
};
function fallback(it) {
  const why = (REASONS[it.reason] || (() => plain(it.reason)))(it);
  const instead = known(it.expected_move_bp)
    ? "The figures are those of the model for trades alone."
    : "The price is the last one known.";
  return `Fallback: ${why}. ${instead} A fallback always abstains.`;
}
const SOURCES = { sim: "simulated market", replay: "replayed recording" };

function element(tag, content = "", name = "") {
  const made = document.createElement(tag);
  made.append(...[content].flat());
  if (name) made.className = name;
  return made;
}

// Text that has not changed is not written again: a selection survives, and nothing is announced twice.
function put(id, text, name) {
  const it = at(id);
  if (it.textContent !== text) it.textContent = text;
  if (name !== undefined && it.className !== name) it.className = name;
  it.hidden = !text;
}

// Content is replaced only where it has changed: what is open stays open, what has the focus keeps it.
const filled = new WeakMap(); // by element, as HTML
function fill(it, ...content) {
  const made = element("div", content);
  const html = made.innerHTML;
  if (filled.get(it) !== html) it.replaceChildren(...made.childNodes);
  filled.set(it, html);
  return it;
}

// Rows of cells; the first cell of each is its heading. A cell is a text, an element, or a cell made before.
function table(it, titles, rows, caption = "") {
  const cell = (tag, content, scope) => {
    const made = content instanceof HTMLTableCellElement ? content : element(tag, content);
    if (scope) made.scope = scope;
    return made;
  };
  const headings = titles.map(title => cell("th", title, "col"));
  const lines = rows.map(cells => {
    const made = cells.map((content, i) => (i ? cell("td", content) : cell("th", content, "row")));
    return element("tr", made);
  });
  const parts = [element("thead", element("tr", headings)), element("tbody", lines)];
  if (caption) parts.unshift(element("caption", caption));
  return fill(it, ...parts);
}

const newTable = (...content) => table(document.createElement("table"), ...content);

function figures(it, pairs) {
  const made = Object.entries(pairs).map(([name, value]) =>
    element("div", [element("dt", name), element("dd", value)]),
  );
  return fill(it, ...made);
}

// A box that scrolls sideways is reached by the keyboard.
function scrolled(it, label) {
  const box = element("div", it, "wide");
  box.tabIndex = 0;
  box.setAttribute("role", "region");
  box.setAttribute("aria-label", label);
  return box;
}
