// Plots by uPlot: drawn in the page's colours, resized with their boxes, destroyed when they have nothing to show.

const plots = new Map(); // by the id of the box
const shades = new Map();
const probe = document.createElement("i");

// The value of a custom property as the canvas understands it: `light-dark()` is resolved by the browser.
function color(name) {
  if (!shades.has(name)) {
    probe.style.color = `var(${name})`;
    document.body.append(probe);
    shades.set(name, getComputedStyle(probe).color);
    probe.remove();
  }
  return shades.get(name);
}

const sizes = new ResizeObserver(changes => {
  for (const { target } of changes)
    plots.get(target.id)?.setSize({ width: target.clientWidth, height: target.clientHeight });
});

// Show `data` in the box, by the options that `make` returns, or `nothing` (a text) where there is no data.
function plot(id, label, make, data, nothing) {
  const box = at(id);
  box.setAttribute("aria-label", data ? label : nothing);
  if (!data) {
    unplot(id);
    box.replaceChildren(element("p", nothing, "empty"));
    return;
  }
  if (plots.has(id)) return plots.get(id).setData(data);
  box.replaceChildren();
  const common = {
    width: box.clientWidth,
    height: box.clientHeight,
    legend: { show: false },
    cursor: { show: false },
    padding: [8, 24, 0, 0],
  };
  plots.set(id, new uPlot({ ...common, ...make() }, data, box));
  sizes.observe(box);
}

function unplot(id) {
  sizes.unobserve(at(id));
  plots.get(id)?.destroy();
  plots.delete(id);
}

function forgetColors() {
  shades.clear();
  [...plots.keys()].forEach(unplot);
}

const FONT = "12px system-ui, sans-serif";
const axis = more => ({
  stroke: () => color("--soft"),
  font: FONT,
  grid: { stroke: () => color("--line"), width: 1 },
  ticks: { show: false },
  gap: 6,
  ...more,
});
const INCRS_S = [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 21600, 43200, 86400];
const times = {
  ...axis({ grid: { show: false }, space: 80, size: 28 }),
  incrs: INCRS_S,
  values: (_, ticks) => ticks.map(second => clock(1000 * second)),
};
const line = (name, width = 2) => ({ stroke: () => color(name), width, points: { show: false } });
const edge = { stroke: "transparent", width: 0, points: { show: false } };

// Run `draw` with a canvas clipped to the plot; x(), y() give positions, `px` is a CSS pixel.
function painted(u, draw) {
  const { ctx, bbox } = u;
  const px = devicePixelRatio;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  ctx.lineJoin = "round";
  draw({ ctx, px, box: bbox, x: value => u.valToPos(value, "x", true), y: value => u.valToPos(value, "y", true) });
  ctx.restore();
}

// A dashed line between two points of the scales.
function dashed(u, from, to) {
  painted(u, ({ ctx, px, x, y }) => {
    ctx.setLineDash([4 * px, 4 * px]);
    ctx.strokeStyle = color("--soft");
    ctx.lineWidth = px;
    ctx.beginPath();
    ctx.moveTo(x(from[0]), y(from[1]));
    ctx.lineTo(x(to[0]), y(to[1]));
    ctx.stroke();
  });
}

// A range around the values with a margin, which includes `must`.
function around(values, must = [], margin = 0.1) {
  const all = values.filter(known).concat(must);
  const low = Math.min(...all);
  const high = Math.max(...all);
  const more = margin * (high - low) || Math.abs(high) * margin || 1;
  return [low - more, high + more];
}
