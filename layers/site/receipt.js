// The receipt of one forecast in a panel: what it said, what came, where its time went, and all that it was made from.

const symbolOf = id => id.slice(0, Math.max(0, id.lastIndexOf("-")));

async function openReceipt(id) {
  if (!id) return;
  const panel = at("receipt");
  const close = element("button", "Close");
  const title = element("h2", `Receipt ${id}`);
  const body = element("div", element("p", "Loading…", "soft"));
  title.id = "receipt-title";
  close.type = "button";
  close.onclick = () => panel.close();
  panel.replaceChildren(element("div", [title, close], "top"), body);
  panel.dataset.receipt = id;
  if (!panel.open) panel.showModal();
  try {
    const receipt = await get(`predictions/${encodeURIComponent(symbolOf(id))}/${encodeURIComponent(id)}`);
    if (panel.dataset.receipt === id) body.replaceChildren(...receiptParts(receipt));
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    if (panel.dataset.receipt === id)
      body.replaceChildren(element("p", `The receipt cannot be shown: ${error.message}`, "notice bad"));
  }
}

function receiptParts(it) {
  const where = it.environment === "local" ? "" : ` URL=${root.replace(/\/$/, "")} KEY=$KEY`;
  return [
    element("p", `As of ${clock(it.timestamp)}, at ${price(it.basis_price)}: ${saidInWords(it)}.`),
    element("h3", "Recompute it from the ticks"),
    copied(`make explain ID=${it.id}${where}`),
    ...outcomesOf(it),
    ...timingOf(it),
    ...sourcesOf(it),
    ...featuresOf(it),
  ];
}

function saidInWords(it) {
  if (it.source === "fallback") return `a fallback (${plain(it.reason)})`;
  const said = it.horizons[state.horizon] || it; // no horizon is chosen before the first answer
  const move = `${direction(said.expected_move_bp)} ${bp(Math.abs(said.expected_move_bp))} in ${said.horizon_s} s`;
  const range = `${price(said.lower)} … ${price(said.upper)}`;
  return `${move} with ${share(said.confidence, 0)} confidence, 80 % interval ${range}`;
}

function copied(text) {
  const button = element("button", "Copy");
  const code = element("code", text);
  button.type = "button";
  button.onclick = async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      // no permission, or no secure context
      getSelection().selectAllChildren(code);
      button.textContent = "Selected";
    }
  };
  return element("div", [code, button], "copy");
}

function outcomesOf(it) {
  const mark = value => (!known(value) ? "–" : element("span", value ? "✓ yes" : "✗ no", value ? "good" : "bad"));
  const rows = Object.values(it.horizons).map(said => {
    const came = it.outcomes?.[said.horizon_s];
    const halfWidth = known(said.lower) ? ((said.upper - said.lower) / 2 / it.basis_price) * 1e4 : null;
    return [
      `${said.horizon_s} s`,
      signed(said.expected_move_bp),
      known(halfWidth) ? `± ${bp(halfWidth)}` : "–",
      share(said.confidence, 0),
      !came ? "not known yet" : came.status === "resolved" ? signed(came.move_bp) : `not known: ${plain(came.why)}`,
      mark(came?.inside),
      mark(came?.right),
    ];
  });
  if (!rows.length) return [];
  const found = newTable(["horizon", "expected", "80 % interval", "confidence", "came", "inside", "direction"], rows);
  return [element("h3", "Forecast and outcome"), scrolled(found, "Forecast and outcome")];
}

function swatch(name) {
  const it = element("span", "", "swatch");
  it.style.background = `var(${name})`;
  return it;
}

function timingOf(it) {
  if (!it.timing_ms) return [];
  const bar = element("div", "", "hops");
  const hops = Object.keys(HOPS);
  hops.forEach((hop, i) => {
    const piece = document.createElement("span");
    piece.style.flexGrow = Math.max(0, it.timing_ms[hop]);
    piece.style.background = `var(${HOP_COLORS[i]})`;
    bar.append(piece);
  });
  const rows = hops.map((hop, i) => [
    element("th", [swatch(HOP_COLORS[i]), HOPS[hop]]),
    `${number(it.timing_ms[hop], 1)} ms`,
  ]);
  return [
    element("h3", `Latency: ${it.latency_ms} ms from the instant it is as of to its delivery`),
    bar,
    newTable(["hop", "time"], rows),
  ];
}

function sourcesOf(it) {
  const ms = value => (known(value) ? `${value} ms` : "not known");
  return [
    element("h3", "What it was made from"),
    figures(element("dl", "", "figures"), {
      "Age of the last trade": ms(it.trade_age_ms),
      "Age of the last quote": ms(it.quote_age_ms),
      "Age of the newest tick": ms(it.feature_age_ms),
      "Last trade": known(it.last_trade_id) ? String(it.last_trade_id) : "none",
      "Last book update": known(it.update_id) ? String(it.update_id) : "none",
      "Late ticks": count(it.late_ids.length + it.late_update_ids.length + it.late_reference_ids.length),
      "Bars without a break since": known(it.history_from_us) ? clock(it.history_from_us / 1000) : "not known",
      "Kinesis record": it.sequence || "not known",
      Model: (it.model_id || "none") + (it.provisional ? " (provisional)" : ""),
      Challenger: it.challenger?.model_id || "none",
      "Outside the range trained on": it.outside.join(", ") || "nothing",
      "Features defined by": it.feature_hash || "not known",
    }),
  ];
}

function featuresOf(it) {
  if (!it.features) return [];
  const rows = Object.entries(it.features).map(([name, value]) => [
    name,
    known(value) ? Number(value.toPrecision(5)).toString().replace("-", "−") : "–",
  ]);
  return [element("h3", `Features (${rows.length})`), newTable(["name", "value"], rows)];
}
