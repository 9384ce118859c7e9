// Where the time of a delivery goes.

const HOPS = {
  to_kinesis: "exchange to Kinesis",
  to_function: "Kinesis to function",
  fold: "ticks into bars",
  features: "features",
  inference: "inference",
  write: "write",
};
const HOP_COLORS = ["--hop-1", "--hop-2", "--hop-3", "--hop-4", "--hop-5", "--hop-6"];
const LATENCY_STEP_S = 5;

function quantile(values, q) {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))];
}

// By steps of some seconds: their times, then from the last hop to the first the mean up to its end, then the slowest
// in ten; null where nothing was delivered. Clocks that differ make a hop negative: it is drawn as 0.
function latencySteps(timed) {
  const stepOf = it => Math.floor(it.timestamp / 1000 / LATENCY_STEP_S) * LATENCY_STEP_S;
  const steps = Map.groupBy(timed, stepOf);
  const times = [];
  for (let step = stepOf(timed[0]); step <= stepOf(timed.at(-1)); step += LATENCY_STEP_S) times.push(step);
  const column = of => times.map(step => (steps.has(step) ? of(steps.get(step)) : null));
  const hops = Object.keys(HOPS);
  const upTo = i => it => hops.slice(0, i + 1).reduce((sum, hop) => sum + Math.max(0, it.timing_ms[hop]), 0);
  const mean = of => them => them.reduce((sum, it) => sum + of(it), 0) / them.length;
  const stacked = hops.map((_, i) => column(mean(upTo(i))));
  return [
    times,
    ...stacked.toReversed(),
    column(them =>
      quantile(
        them.map(it => it.latency_ms),
        0.9,
      ),
    ),
  ];
}

const durations = (_, ticks) => ticks.map(ms => (ticks.at(-1) < 10000 ? `${ms} ms` : `${ms / 1000} s`));

// One slow moment does not flatten all others.
function latencyRange(u) {
  const slowest = u.data.at(-1).filter(known);
  return [0, 1.1 * Math.max(10, Math.min(Math.max(...slowest), 4 * quantile(slowest, 0.5)))];
}

function showLatency(entries) {
  const timed = entries.filter(it => it.timing_ms).slice(-NEWEST);
  const totals = timed.map(it => it.latency_ms);
  const [half, most] = [0.5, 0.9].map(q => number(quantile(totals, q), 0));
  const last = `Latency of the last ${plural(timed.length, "forecast")}`;
  plot(
    "latency",
    `${last}: half were delivered within ${half} ms, nine of ten within ${most} ms.`,
    () => ({
      scales: {
        x: { time: false, range: (_, low, high) => [low, Math.max(high, low + 60)] },
        y: { range: latencyRange },
      },
      axes: [
        times,
        axis({ size: 60, values: durations }),
      ],
      series: [
        {},
        ...HOP_COLORS.toReversed().map(name => ({ ...edge, fill: () => color(name) })),
        { ...line("--soft", 1.2), dash: [3, 3] },
      ],
    }),
    timed.length ? latencySteps(timed) : null,
    "The parts of the latency are not known yet.",
  );
  const rows = Object.entries(HOPS).map(([hop, name], i) => {
    const values = timed.map(it => it.timing_ms[hop]);
    const [p50, p90] = [0.5, 0.9].map(q => number(quantile(values, q), 1));
    return [element("th", [swatch(HOP_COLORS[i]), name]), p50, p90];
  });
  rows.push([element("th", element("strong", "in all")), half, most]);
  table(at("hops"), ["hop", "p50", "p90"], timed.length ? rows : []);
}
