// How good forecasts were: by horizon, over time, by age, by confidence, and what acting on them would have earned.

function showScores() {
  const { summary, scored_age_s } = state.accuracy, span = summary?.[state.span], horizon = state.horizon, ours = span?.horizons[horizon];
  const later = span && state.span !== "hour" && span.first === summary.hour.first ? ` There are no older outcomes: the ${state.span} is no longer than the hour.` : "";
  put("scored", !span || !known(span.first) ? "Not scored yet: the first outcomes are scored within a minute or two."
    : `Scored ${number(scored_age_s, 0)} s ago, outcomes since ${since(span)}. A model answered in ${share(span.availability)} of the seconds. 95 % intervals need ten blocks of time.${later}`);
  showAccuracy(span);
  showSeries(span?.series?.[horizon], horizon);
  showByAge(ours?.by_age, horizon);
  showCalibration(ours, horizon);
  showEarnings(span?.earnings?.[horizon], horizon);
  showChallenger();
}

const since = span => span.to - span.first < 86400000 ? clock(span.first) : new Date(span.first).toLocaleDateString("en-GB", { day: "numeric", month: "short" });

function showAccuracy(span) {
  const rows = Object.values(span?.horizons || {}).map(it => {
    const unresolved = Object.values(it.unresolved).reduce((sum, n) => sum + n, 0);
    return [`${it.horizon_s} s`, count(it.count), skill(it.skill), skill(it.skill_vs_linear), withInterval(it.direction, it.direction_ci), withInterval(it.coverage, it.coverage_ci),
      known(it.calibration_error) ? `${share(it.calibration_error)} (${share(it.calibration_floor)})` : "–", count(it.abstained), count(it.fallbacks), count(unresolved)];
  });
  table(at("accuracy"), ["horizon", "outcomes", "skill (95 %)", "against a line through book imbalance", "direction right, %", "inside the 80 % interval, %", "calibration error (by chance)", "abstained", "fallbacks", "not resolved"], rows);
  [...at("accuracy").tBodies[0].rows].forEach((row, i) => row.classList.toggle("chosen", Object.keys(span.horizons)[i] === state.horizon));
}

// Skill with its interval along x; rows are [x, skill or null].
function skillPlot(id, label, rows, nothing, x) {
  const sure = rows.filter(([, it]) => it);
  const data = sure.length ? [rows.map(([at]) => at), ...["value", "low", "high"].map(name => rows.map(([, it]) => it?.[name] ?? null))] : null;
  if (plots.has(id)) unplot(id);  // its range and its label are others
  plot(id, data ? `${label}: ${sure.map(([at, it]) => `${x.say(at)} ${skill(it)}`).join("; ")}` : "", () => ({
    scales: { x: { time: false, range: x.range }, y: { range: around(data.slice(1).flat(), [0]) } },
    axes: [{ ...times, ...x.axis }, axis({ size: 50, values: (_, ticks) => ticks.map(tick => number(tick, 2)) })],
    series: [{}, { ...line("--accent"), points: { show: true, size: 6, fill: () => color("--accent") } }, edge, edge],
    bands: [{ series: [3, 2], fill: () => color("--fan") }],
    hooks: { drawAxes: [u => dashed(u, [[u.scales.x.min, 0], [u.scales.x.max, 0]], "--soft")], draw: [u => drawWhiskers(u, sure)] },
  }), data, nothing);
}

// Each interval by itself: a band shows none of a point without neighbours.
function drawWhiskers(u, rows) {
  painted(u, ({ ctx, px, x, y }) => {
    ctx.strokeStyle = color("--accent");
    ctx.lineWidth = px;
    ctx.beginPath();
    for (const [at, it] of rows) {
      if (!known(it.low)) continue;
      ctx.moveTo(x(at), y(it.low));
      ctx.lineTo(x(at), y(it.high));
    }
    ctx.stroke();
  });
}

function showSeries(series, horizon) {
  const isLong = state.span === "week", middle = it => (it.from + it.to) / 2000;
  const say = second => isLong ? new Date(1000 * second).toLocaleDateString("en-GB", { day: "numeric", month: "short" }) : clock(1000 * second).slice(0, 5);
  const rows = (series || []).map(it => [middle(it), it.skill]);
  const around = rows.length ? [rows[0][0], rows.at(-1)[0]] : [0, 1], margin = Math.max(60, .04 * (around[1] - around[0]));
  skillPlot("series", `Skill over ${horizon} s in the last ${state.span}`, rows, series ? "No outcomes in this span yet." : "Not known yet.",
    { range: () => [around[0] - margin, around[1] + margin], say, axis: { space: 60, values: (_, ticks) => ticks.map(say) } });
}

function showByAge(ages, horizon) {
  const rows = (ages || []).map(it => [it.age_s, it.skill]), say = age => `${number(age, age % 1 ? 1 : 0)} s`;
  const last = rows.length ? rows.at(-1)[0] : 1;
  skillPlot("by-age", `Skill by age over ${horizon} s`, rows, "Not known yet.", { range: () => [-.05 * last - .02, last * 1.05 + .02], say, axis: { space: 50, values: (_, ticks) => ticks.map(say) } });
}

function showCalibration(ours, horizon) {
  const bins = (ours?.bins || []).filter(bin => bin.count), most = Math.max(...bins.map(bin => bin.count));
  const data = bins.length ? [bins.map(bin => bin.confidence), bins.map(bin => bin.right)] : null;
  const spread = bin => 1.96 * Math.sqrt(Math.max(bin.right * (1 - bin.right), .25 / bin.count) / bin.count);
  if (plots.has("calibration")) unplot("calibration");
  plot("calibration", data ? `Calibration over ${horizon} s: ${bins.map(bin => `stated ${share(bin.confidence, 0)}, right ${share(bin.right, 0)} of ${bin.count}`).join("; ")}` : "", () => ({
    scales: { x: { time: false, range: [.48, 1.02] }, y: { range: around(bins.flatMap(bin => [bin.right - spread(bin), bin.right + spread(bin)]).map(it => Math.min(1, Math.max(0, it))), [.5, 1], .04) } },
    axes: [{ ...times, space: 50, values: (_, ticks) => ticks.map(tick => share(tick, 0)) }, axis({ size: 56, values: (_, ticks) => ticks.map(tick => share(tick, 0)) })],
    series: [{}, { ...line("--accent", 1), paths: () => null }],
    hooks: { drawAxes: [u => dashed(u, [[.5, .5], [1, 1]], "--soft")], draw: [u => painted(u, ({ ctx, px, x, y }) => {
      ctx.fillStyle = ctx.strokeStyle = color("--accent");
      ctx.lineWidth = px;
      for (const bin of bins) {
        ctx.beginPath();
        ctx.moveTo(x(bin.confidence), y(bin.right - spread(bin)));
        ctx.lineTo(x(bin.confidence), y(bin.right + spread(bin)));
        ctx.stroke();
        ctx.beginPath();
        ctx.arc(x(bin.confidence), y(bin.right), (2.5 + 5 * Math.sqrt(bin.count / most)) * px, 0, 7);
        ctx.fill();
      }
    })] },
  }), data, "No forecast with a known direction yet.");
}

function showEarnings(earnings, horizon) {
  put("acted", `Hypothetical, mean of a trade: every forecast over ${horizon} s that expected a move of that size is acted on at its delivery and closed ${horizon} s later. Net of half the spread each time and two fees; without size, impact and the way of an order.`);
  const rows = (earnings || []).filter((it, i) => it.trades || !i || !known(it.threshold_bp)).map(it => [
    known(it.threshold_bp) ? `${it.threshold_bp} bp` : "worth trading", count(it.trades), signed(it.gross_bp), known(it.spread_bp) ? bp(it.spread_bp + it.fees_bp) : "–",
    signed(it.net_bp) + (it.net_ci ? ` (${interval(...it.net_ci)})` : ""), bp(it.break_even_fee_bp), share(it.shuffled_p)]);
  table(at("earnings"), ["from", "trades", "gross", "cost", "net (95 %)", "breaks even at a fee of", "shuffles that earn as much"], rows);
}

// Where the time of a delivery goes, in the last minutes: each hop on top of those before it, in means of some seconds.
const LATENCY_STEP_S = 5;

function showLatency(entries) {
  const timed = entries.filter(it => it.timing_ms).slice(-NEWEST), hops = Object.keys(HOPS);
  const quantile = (values, q) => values.toSorted((a, b) => a - b)[Math.min(values.length - 1, Math.floor(q * values.length))];
  const of = q => quantile(timed.map(it => it.latency_ms), q), steps = new Map();
  for (const it of timed) {
    const step = Math.floor(it.timestamp / 1000 / LATENCY_STEP_S) * LATENCY_STEP_S;
    steps.set(step, [...(steps.get(step) || []), it]);
  }
  const means = hops.map(hop => [...steps.values()].map(them => them.reduce((sum, it) => sum + Math.max(0, it.timing_ms[hop]), 0) / them.length));
  const stacked = means.map((_, i) => means[0].map((_, j) => means.slice(0, i + 1).reduce((sum, hop) => sum + hop[j], 0)));
  const slowest = [...steps.values()].map(them => quantile(them.map(it => it.latency_ms), .9));
  const data = timed.length ? [[...steps.keys()], ...stacked.toReversed(), slowest] : null;
  plot("latency", data ? `Latency of the last ${plural(timed.length, "forecast")}: half were delivered within ${number(of(.5), 0)} ms, nine of ten within ${number(of(.9), 0)} ms.` : "", () => ({
    scales: { x: { time: false, range: (u, low, high) => [low, Math.max(high, low + 60)] },
      y: { range: u => [0, 1.1 * Math.max(10, Math.min(Math.max(...u.data.at(-1)), 3 * quantile(u.data.at(-1), .8)))] } },
    axes: [times, axis({ size: 60, values: (_, ticks) => ticks.map(tick => `${tick} ms`) })],
    series: [{}, ...hops.map((_, i) => ({ ...edge, fill: () => color(hopColors[hops.length - 1 - i]) })), { ...line("--soft", 1.2), dash: [3, 3] }],
  }), data, "The parts of the latency are not known yet.");
  const rows = data ? [...hops.map((hop, i) => {
    const values = timed.map(it => it.timing_ms[hop]);
    return [element("th", [swatch(hopColors[i]), HOPS[hop]]), number(quantile(values, .5), 1), number(quantile(values, .9), 1)];
  }), [element("th", element("strong", "in all")), number(of(.5), 0), number(of(.9), 0)]] : [];
  table(at("hops"), ["hop", "p50", "p90"], rows);
}
