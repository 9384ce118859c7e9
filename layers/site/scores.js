// How good forecasts were: by horizon, over time, by age, by confidence, and what acting on them would have earned.

// Steps of an axis that two digits can say, or three below a hundredth.
const INCRS_OF_SKILL = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100];
const digitsOf = ticks => (ticks[1] - ticks[0] < 0.0099 ? 3 : 2);

function showScores() {
  const span = state.accuracy?.summary?.[state.span];
  const ours = span?.horizons[state.horizon];
  showScored();
  showAccuracy(span);
  showSeries(span?.series?.[state.horizon], ours?.skill);
  showByAge(ours?.by_age);
  showCalibration(ours?.bins);
  showEarnings(span?.earnings?.[state.horizon]);
  showChallenger();
}

// How long ten blocks of time are, the fewest that an interval is made from.
const TEN_BLOCKS = { hour: "ten minutes", day: "two and a half hours", week: "ten hours" };

function showScored() {
  if (!state.accuracy) return put("scored", "");
  const { summary, scored_age_s } = state.accuracy;
  const span = summary?.[state.span];
  if (!span || !known(span.first)) {
    put("scored", "Not scored yet: the first outcomes are scored within a minute or two.");
    return;
  }
  const isNoLonger = state.span !== "hour" && span.first === summary.hour.first;
  const began = span.to - span.first < 86400000 ? clock(span.first) : date(span.first);
  put(
    "scored",
    `Scored ${number(scored_age_s, 0)} s ago, outcomes since ${began}. ` +
      `A model answered in ${share(span.availability)} of the seconds. 95 % intervals need ${TEN_BLOCKS[state.span]}.` +
      (isNoLonger ? " There are no outcomes before the last hour." : ""),
  );
}

function showAccuracy(span) {
  const all = Object.values(span?.horizons || {});
  const rows = all.map(it => [
    `${it.horizon_s} s`,
    count(it.count),
    skill(it.skill),
    skill(it.skill_vs_linear),
    withInterval(it.direction, it.direction_ci),
    withInterval(it.coverage, it.coverage_ci),
    known(it.calibration_error) ? `${share(it.calibration_error)} (${share(it.calibration_floor)})` : "–",
    count(it.abstained),
    count(it.fallbacks),
    count(Object.values(it.unresolved).reduce((sum, n) => sum + n, 0)),
  ]);
  const titles = [
    "horizon",
    "outcomes",
    "skill (95\u00a0%)",
    "against a line through book imbalance",
    "direction right,\u00a0%",
    "inside the 80\u00a0% interval,\u00a0%",
    "calibration error (by chance)",
    "abstained",
    "fallbacks",
    "not resolved",
  ];
  const lines = table(at("accuracy"), titles, rows).tBodies[0].rows;
  all.forEach((it, i) => lines[i].classList.toggle("chosen", String(it.horizon_s) === state.horizon));
}

const LEAST = [-0.02, 0.06]; // of skill is always shown: less is noise

// Skill with its interval along x; rows are [x, skill or null]. `say` puts an x into words. Across it `whole`, the
// skill of the whole span, if given.
function skillPlot(id, label, rows, range, say, whole) {
  const sure = rows.filter(([, it]) => it);
  const column = name => rows.map(([, it]) => it?.[name] ?? null);
  const data = [rows.map(([x]) => x), column("value"), column("low"), column("high")];
  const heights = around([...data.slice(1).flat(), whole?.low, whole?.high], LEAST);
  if (plots.has(id)) unplot(id); // its ranges are others
  plot(
    id,
    `${label}: ${sure.map(([x, it]) => `${say(x)} ${skill(it)}`).join("; ")}`,
    () => ({
      scales: { x: { time: false, range: () => range }, y: { range: heights } },
      axes: [
        { ...times, space: 60, values: (_, ticks) => ticks.map(say), incrs: id === "series" ? INCRS_S : undefined },
        axis({ size: 54, incrs: INCRS_OF_SKILL, values: (_, ticks) => ticks.map(tick => number(tick, digitsOf(ticks))) }),
      ],
      series: [{}, { ...line("--accent"), points: { show: true, size: 6, fill: () => color("--accent") } }, edge, edge],
      bands: [{ series: [3, 2], fill: () => color("--fan") }],
      hooks: {
        drawAxes: [u => dashed(u, [range[0], 0], [range[1], 0]), u => whole && drawAcross(u, whole)],
        draw: [u => sure.forEach(([x, it]) => drawWhisker(u, x, it.low, it.high))],
      },
    }),
    sure.length ? data : null,
    "No outcomes in this span yet.",
  );
}

function drawAcross(u, { value, low, high }) {
  painted(u, ({ ctx, px, box, y }) => {
    ctx.fillStyle = color("--past");
    if (known(low)) ctx.fillRect(box.left, y(high), box.width, y(low) - y(high));
    ctx.fillStyle = color("--faint");
    ctx.fillRect(box.left, y(value), box.width, px);
  });
}

// A band shows nothing of a point without neighbours.
function drawWhisker(u, at, low, high) {
  if (!known(low)) return;
  painted(u, ({ ctx, px, x, y }) => {
    ctx.strokeStyle = color("--accent");
    ctx.lineWidth = px;
    ctx.beginPath();
    ctx.moveTo(x(at), y(low));
    ctx.lineTo(x(at), y(high));
    ctx.stroke();
  });
}

const STEPS = {
  hour: "5 minutes, too short for 95 % intervals",
  day: "an hour, with 95 % intervals where 50 minutes of it are known",
  week: "a day, with 95 % intervals where ten hours of it are known",
};

function showSeries(series, whole) {
  const rows = (series || []).map(it => [(it.from + it.to) / 2000, it.skill]);
  const first = rows[0]?.[0] || 0;
  const last = rows.at(-1)?.[0] || 0;
  const margin = Math.max(150, 0.04 * (last - first));
  const say = second => (state.span === "week" ? date(1000 * second) : clock(1000 * second).slice(0, 5));
  const label = `Skill over ${state.horizon} s in the last ${state.span}`;
  put(
    "steps",
    `In steps of ${STEPS[state.span]}. Across it, the whole ${state.span} with its interval.`,
  );
  skillPlot("series", label, rows, [first - margin, last + margin], say, whole);
}

function showByAge(ages) {
  const rows = (ages || []).map(it => [it.age_s, it.skill]);
  const last = Math.max(1, rows.at(-1)?.[0] || 0);
  const say = age => `${number(age, age % 1 ? 1 : 0)} s`;
  skillPlot("by-age", `Skill by age over ${state.horizon} s`, rows, [-0.05 * last, 1.05 * last], say);
}

// With 95 % intervals as of independent outcomes, which are narrower than they should be where outcomes overlap.
function showCalibration(bins = []) {
  const most = Math.max(...bins.map(bin => bin.count));
  const half = bin => 1.96 * Math.sqrt(Math.max(bin.right * (1 - bin.right), 0.25 / bin.count) / bin.count);
  const low = bin => Math.max(0, bin.right - half(bin));
  const high = bin => Math.min(1, bin.right + half(bin));
  const percent = { values: (_, ticks) => ticks.map(tick => share(tick, 0)) };
  const words = bins.map(it => `stated ${share(it.confidence, 0)}, right ${share(it.right, 0)} of ${it.count}`);
  const heights = around([...bins.map(low), ...bins.map(high)], [0.5, 1], 0.04);
  const drawBins = u =>
    painted(u, ({ ctx, px, x, y }) => {
      ctx.fillStyle = color("--accent");
      for (const bin of bins) {
        ctx.beginPath();
        ctx.arc(x(bin.confidence), y(bin.right), (2.5 + 5 * Math.sqrt(bin.count / most)) * px, 0, 7);
        ctx.fill();
      }
    });
  if (plots.has("calibration")) unplot("calibration");
  plot(
    "calibration",
    `Calibration over ${state.horizon} s: ${words.join("; ")}`,
    () => ({
      scales: { x: { time: false, range: [0.48, 1.02] }, y: { range: heights } },
      axes: [{ ...times, ...percent, space: 50, incrs: undefined }, axis({ ...percent, size: 56 })],
      series: [{}, { ...line("--accent"), paths: () => null }],
      hooks: {
        drawAxes: [u => dashed(u, [0.5, 0.5], [1, 1])],
        draw: [u => bins.forEach(bin => drawWhisker(u, bin.confidence, low(bin), high(bin))), drawBins],
      },
    }),
    bins.length ? [bins.map(bin => bin.confidence), bins.map(bin => bin.right)] : null,
    "No forecast with a known direction yet.",
  );
}

function showEarnings(earnings = []) {
  put(
    "acted",
    `Hypothetical, mean of a trade: every forecast over ${state.horizon} s that expected at least such a move is ` +
      `acted on at its delivery and closed ${state.horizon} s later. Net of half the spread each time and two fees; ` +
      "order size, market impact and the order's own latency are ignored.",
  );
  const shown = earnings.filter((it, i) => it.trades || !i || !known(it.threshold_bp));
  const rows = shown.map(it => [
    known(it.threshold_bp) ? `${it.threshold_bp} bp` : "worth trading",
    count(it.trades),
    signed(it.gross_bp),
    known(it.spread_bp) ? bp(it.spread_bp + it.fees_bp) : "–",
    signed(it.net_bp) + (it.net_ci ? ` (${interval(...it.net_ci)})` : ""),
    bp(it.break_even_fee_bp),
    share(it.shuffled_p),
  ]);
  const titles = [
    "from",
    "trades",
    "gross",
    "cost",
    "net (95\u00a0%)",
    "breaks even at a fee of",
    "shuffles that earn as much",
  ];
  table(at("earnings"), titles, rows);
}
