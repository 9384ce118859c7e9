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
// in ten. Clocks that differ make a hop negative: it is drawn as 0.
function latencySteps(timed) {
  const steps = Map.groupBy(timed, it => Math.floor(it.timestamp / 1000 / LATENCY_STEP_S) * LATENCY_STEP_S);
  const members = [...steps.values()];
  let sums = members.map(() => 0);
  const stacked = Object.keys(HOPS).map(hop => {
    const mean = them => them.reduce((sum, it) => sum + Math.max(0, it.timing_ms[hop]), 0) / them.length;
    sums = sums.map((sum, i) => sum + mean(members[i]));
    return sums;
  });
  const slowest = members.map(them =>
    quantile(
      them.map(it => it.latency_ms),
      0.9,
    ),
  );
  return [[...steps.keys()], ...stacked.toReversed(), slowest];
}

// One slow moment does not flatten all others.
function latencyRange(u) {
  const slowest = u.data.at(-1);
  return [0, 1.1 * Math.max(10, Math.min(Math.max(...slowest), 3 * quantile(slowest, 0.8)))];
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
      axes: [times, axis({ size: 60, values: (_, ticks) => ticks.map(tick => `${tick} ms`) })],
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
