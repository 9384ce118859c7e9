// The newest forecast: what is still to come from now on, and what that means for a trader.

function showLatest(it) {
  const target_time = it.as_of + 1000 * Number(state.horizon); // a fallback's is that of the primary horizon
  const answer = { ...it, target_time, ...it.horizons[state.horizon] };
  const move = answer.expected_move_bp;
  const isFallback = it.source === "fallback";
  const kind = !known(move) || answer.abstains ? "soft" : move > 0 ? "good" : "bad";
  const isQuiet = it.quiet ? `; the market has been quiet for ${seconds(it.age_ms.tick)}` : "";
  document.title = `${price(it.basis_price)} ${it.symbol} – tickcast`;
  put("environment", it.environment, "badge");
  put("provisional", it.provisional ? "provisional model" : "", "badge warn");
  put("fallback", isFallback ? fallback(it) : "");
  put("announced", isFallback ? `Forecasts of ${it.symbol} are fallbacks: ${plain(it.reason)}` : "");
  put("market", `${it.symbol}, mid price`);
  put("mid", price(it.basis_price));
  put("asof", `as of ${clock(it.timestamp)}, ${seconds(it.age_ms.claim)} ago${isQuiet}`);
  put("ahead", `In ${state.horizon} s`);
  put("direction", known(move) ? `${direction(move)} ${bp(Math.abs(move))}` : "No forecast", `big ${kind}`);
  const target = `still to come, to ${price(answer.predicted_price)} at ${clock(answer.target_time)}`;
  put("target", known(move) ? target : "");
  put("range", known(answer.lower) ? `80 % interval ${price(answer.lower)} … ${price(answer.upper)}` : "");
  put("verdict", verdict(answer));
  showChances(answer);
  showFigures(answer);
}

function verdict(it) {
  if (it.source === "fallback") return "Abstains, as every fallback does.";
  if (it.abstains)
    return `Abstains: a move this small is within the noise${known(it.noise_bp) ? `, ${bp(it.noise_bp)}` : ""}.`;
  if (!known(it.worth_trading)) return "Whether it is worth trading is not known without quotes.";
  if (!it.worth_trading) return `Not worth trading: a round trip costs ${bp(it.cost_bp)}.`;
  return `Worth trading: it expects ${bp(it.edge_bp)} more than a round trip costs (${bp(it.cost_bp)}).`;
}

function showChances(it) {
  const chances = known(it.p_up) ? { up: it.p_up, flat: it.p_flat, down: it.p_down } : { up: 0, flat: 1, down: 0 };
  const text = known(it.p_up)
    ? `up ${share(it.p_up, 0)} · no move ${share(it.p_flat, 0)} · down ${share(it.p_down, 0)}`
    : "not known";
  for (const bar of at("chances").children) bar.style.flexGrow = chances[bar.className];
  at("chances").setAttribute("aria-label", text);
  put("chances-text", text);
}

function showFigures(it) {
  figures(at("figures"), {
    "Expected move from now on": signed(it.expected_move_bp),
    "Confidence in the direction": share(it.confidence),
    "Noise up to": bp(it.noise_bp),
    "Usual move": bp(it.scale_bp),
    "Round trip costs": bp(it.cost_bp),
    "of which spread": bp(it.spread_bp, 3),
    "Edge after cost": signed(it.edge_bp),
    "Worth trading": !known(it.worth_trading) ? "not known" : it.worth_trading ? "yes" : "no",
    Target: clock(it.target_time),
    "Newest tick": known(it.age_ms.tick) ? `${seconds(it.age_ms.tick)} old` : "not known",
    Latency: known(it.latency_ms) ? `${it.latency_ms} ms` : "–",
    Inference: known(it.inference_ms) ? `${number(it.inference_ms, 2)} ms` : "–",
    Model: (it.model_id || "none") + (it.provisional ? " (provisional)" : ""),
    Receipt: it.id,
  });
}
