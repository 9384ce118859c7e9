// The chart of the mid: where the forecast expects it to go from now on, and what became of earlier forecasts.

const AHEAD_S = 12; // shown after now
const LONGEST_GAP_S = 2.5; // between two mids that a line connects
const DELIVERED_MAX_MS = 5000;
const STRIP = 34; // CSS pixels below the prices, for the marks of directions
const path = { view: null, chosen: null, hovered: null };

// How the direction of a forecast is marked.
function kindOf(entry, said, came) {
  if (!said || entry.source === "fallback") return "fallback";
  if (!came) return "pending";
  if (came.status === "unresolved") return "unresolved";
  if (said.abstains) return "abstained";
  return !known(came.right) ? "flat" : came.right ? "right" : "wrong";
}

// What a forecast said about its target, and what came.
function markOf(entry, horizon) {
  const said = entry.horizons[horizon];
  const came = entry.outcomes?.[horizon] || null;
  const delivered = entry.timestamp + Math.min(Math.max(entry.latency_ms || 0, 0), DELIVERED_MAX_MS);
  const mark = {
    id: entry.id,
    delivered: delivered / 1000,
    time: delivered / 1000 + Number(horizon),
    entry,
    said,
    came,
  };
  if (said) {
    // The interval is one of the move from the mid at delivery: it is drawn around that mid where it is known.
    const start = said.predicted_price / (1 + said.expected_move_bp / 1e4);
    const shift = (came?.delivered_price || start) / start;
    Object.assign(mark, {
      start: start * shift,
      expected: said.predicted_price * shift,
      lower: said.lower * shift,
      upper: said.upper * shift,
    });
  }
  mark.kind = kindOf(entry, said, came);
  return mark;
}

// The path of the newest forecast: [time, price, half width], from the mid that it starts from. Between the horizons the
// price is interpolated, and so is the square of the width, as a random walk's grows.
function fanOf(latest) {
  const horizons = Object.values(latest.horizons).sort((a, b) => a.horizon_s - b.horizon_s);
  if (!horizons.length) return [];
  const knots = [[latest.timestamp / 1000, latest.basis_price, 0]];
  for (const it of horizons) knots.push([it.target_time / 1000, it.predicted_price, (it.upper - it.lower) / 2]);
  const fan = [];
  for (let i = 1; i < knots.length; i++) {
    const [[t0, p0, w0], [t1, p1, w1]] = [knots[i - 1], knots[i]];
    const steps = i === knots.length - 1 ? 9 : 8;
    for (let step = 0; step < steps; step++) {
      const f = step / 8;
      fan.push([t0 + f * (t1 - t0), p0 + f * (p1 - p0), Math.sqrt(w0 * w0 + f * (w1 * w1 - w0 * w0))]);
    }
  }
  return fan;
}

function look(entries, latest, horizon, minutes) {
  const now = latest.as_of / 1000;
  const from = now - 60 * minutes;
  const isShown = mark => mark.time >= from && mark.time <= now + Number(horizon);
  const marks = entries.map(entry => markOf(entry, horizon)).filter(isShown);
  const data = lineOf([...midsOf(entries, latest), ...outcomesIn(marks)].filter(([time]) => time >= from - 5));
  return { now, from, marks, fan: fanOf(latest), target: latest.horizons[horizon], data };
}

// Where the mid is known: [time, price].
const midsOf = (entries, latest) => [...entries, latest].map(it => [it.timestamp / 1000, it.basis_price]);
const outcomesIn = marks =>
  marks.filter(mark => known(mark.came?.outcome_price)).map(mark => [mark.time, mark.came.outcome_price]);

// A line through points of any order, with a gap where there are none.
function lineOf(points) {
  const x = [];
  const y = [];
  for (const [time, mid] of points.sort((a, b) => a[0] - b[0])) {
    const before = x.at(-1);
    if (time - before > LONGEST_GAP_S) {
      x.push((time + before) / 2);
      y.push(null);
    }
    x.push(time);
    y.push(mid);
  }
  return [x, y];
}

// Prices from lowest to highest, in steps, so that the scale does not change every second.
function heights({ data, fan, marks, now }) {
  const all = data[1].filter(known);
  fan.forEach(([, mid, half]) => all.push(mid - half, mid + half));
  marks.forEach(mark => mark.said && mark.time <= now && all.push(mark.lower, mark.upper));
  const low = Math.min(...all);
  const high = Math.max(...all);
  const span = high - low || high * 1e-5;
  const step = 10 ** Math.floor(Math.log10(span)) / 4;
  return [Math.floor(low / step) * step, Math.ceil(high / step) * step];
}

function drawPath(entries, latest, horizon, minutes) {
  path.view = look(entries, latest, horizon, minutes);
  const { marks, data } = path.view;
  if (!marks.some(mark => mark.id === path.chosen)) path.chosen = null;
  put("hits", hitsInWords(marks, horizon));
  plot("path", "", pathOptions, data);
  describePath(minutes);
}

function hitsInWords(marks, horizon) {
  const over = marks.filter(mark => known(mark.came?.inside));
  if (!over.length) return "";
  const inside = over.filter(mark => mark.came.inside).length;
  const moved = over.filter(mark => mark.kind === "right" || mark.kind === "wrong");
  const right = moved.filter(mark => mark.kind === "right").length;
  return (
    `Of ${plural(over.length, "forecast")} over ${horizon} s with a known outcome, ${inside} ended inside their interval ` +
    `(${share(inside / over.length, 0)}, 80 % is the aim). ` +
    (moved.length
      ? `Of ${moved.length} that named a direction and saw a move, ${right} were right (${share(right / moved.length, 0)}).`
      : "None named a direction and saw a move.")
  );
}

function describePath(minutes) {
  const box = at("path");
  const { marks } = path.view;
  const place = marks.findIndex(mark => mark.id === (path.hovered || path.chosen));
  const shown = marks[place];
  box.setAttribute(
    "aria-label",
    `Mid price of the last ${plural(minutes, "minute")}, forecast and earlier forecasts. ${at("hits").textContent}`,
  );
  box.setAttribute("aria-valuemin", 0);
  box.setAttribute("aria-valuemax", Math.max(0, marks.length - 1));
  box.setAttribute("aria-valuenow", place < 0 ? Math.max(0, marks.length - 1) : place);
  box.setAttribute("aria-valuetext", shown ? inWords(shown) : "none chosen");
  put(
    "readout",
    shown
      ? inWords(shown) + " · Enter or click: receipt"
      : "Choose an earlier forecast to see what it said, what came, and its receipt.",
    shown ? "readout" : "readout soft",
  );
}

const KINDS = {
  right: "direction right",
  wrong: "direction wrong",
  flat: "no move",
  abstained: "abstained",
  pending: "outcome pending",
  fallback: "a fallback",
  unresolved: "outcome not known",
};
function inWords({ said, came, kind, time, entry }) {
  const parts = [`For ${clock(1000 * time)}`];
  if (said) {
    const move = `${direction(said.expected_move_bp)} ${bp(Math.abs(said.expected_move_bp))}`;
    parts.push(`said ${move} with ${share(said.confidence, 0)} confidence`);
  } else parts.push(`no forecast (${plain(entry.reason)})`);
  if (known(came?.move_bp)) parts.push(`came ${signed(came.move_bp)}`);
  if (known(came?.inside)) parts.push(came.inside ? "inside the interval" : "outside the interval");
  if (said) parts.push(KINDS[kind]);
  return parts.join(" · ");
}

function pathOptions() {
  return {
    scales: {
      x: { time: false, range: () => [path.view.from, path.view.now + AHEAD_S] },
      y: {
        range: u => {
          const [low, high] = heights(path.view);
          const strip = (STRIP * (high - low)) / Math.max(60, u.height - STRIP - 40);
          return [low - strip, high];
        },
      },
    },
    axes: [times, axis({ size: 72, values: (_, ticks) => ticks.map(ticks[1] - ticks[0] < 1 ? price : count) })],
    series: [{}, { ...line("--fore", 1.6), spanGaps: false }],
    hooks: { drawAxes: [drawIntervals], draw: [drawMarks], ready: [followPointer] },
  };
}

function drawIntervals(u) {
  painted(u, ({ ctx, px, x, y }) => {
    const area = (points, fill) => {
      ctx.fillStyle = fill;
      ctx.beginPath();
      points.forEach(([time, , high]) => ctx.lineTo(x(time), y(high)));
      points.toReversed().forEach(([time, low]) => ctx.lineTo(x(time), y(low)));
      ctx.fill();
    };
    let run = [];
    for (const { said, time, lower, upper } of [...path.view.marks, { time: Infinity }]) {
      if (run.length && (!said || time - run.at(-1)[0] > LONGEST_GAP_S)) (area(run, color("--past")), (run = []));
      if (said && time <= path.view.now) run.push([time, lower, upper]);
    }
    if (run.length) area(run, color("--past"));
    const { fan } = path.view;
    area(
      fan.map(([time, mid, half]) => [time, mid - half, mid + half]),
      color("--fan"),
    );
    ctx.strokeStyle = color("--accent");
    ctx.lineWidth = 2 * px;
    ctx.beginPath();
    fan.forEach(([time, mid]) => ctx.lineTo(x(time), y(mid)));
    ctx.stroke();
  });
}

function triangle(ctx, x, y, size, isUp) {
  const d = isUp ? size : -size;
  ctx.beginPath();
  ctx.moveTo(x - size, y + d * 0.8);
  ctx.lineTo(x, y - d * 0.9);
  ctx.lineTo(x + size, y + d * 0.8);
  ctx.closePath();
}

// Below the prices the directions, on the mid the outcomes outside their interval, and the line of now.
function drawMarks(u) {
  const { now, from, marks, target } = path.view;
  const shown = marks.find(mark => mark.id === (path.hovered || path.chosen));
  painted(u, canvas => {
    const { px, box, x, y } = canvas;
    const size = Math.min(5, Math.max(2, box.width / px / (now - from) / 2.4)) * px;
    for (const mark of marks) drawMark(canvas, mark, size);
    drawNow(canvas, x(now));
    if (target) dot(canvas, x(target.target_time / 1000), y(target.predicted_price), 4 * px, color("--accent"));
    if (shown) drawShown(canvas, shown);
  });
}

function drawMark(canvas, { kind, said, came, time }, size) {
  const { ctx, px, box, x, y } = canvas;
  const foot = box.top + box.height - 13 * px;
  ctx.lineWidth = 1.6 * px;
  ctx.fillStyle = color("--good");
  ctx.strokeStyle = color("--bad");
  if (came?.inside === false) {
    ctx.beginPath();
    ctx.arc(x(time), y(came.outcome_price), Math.max(2.5 * px, 0.9 * size), 0, 7);
    ctx.stroke();
  }
  if (kind === "right" || kind === "wrong") {
    triangle(ctx, x(time), foot, size, said.expected_move_bp > 0);
    kind === "right" ? ctx.fill() : ctx.stroke();
  } else if (kind !== "pending") dot(canvas, x(time), foot, 1.6 * px, color("--faint"));
}

function dot({ ctx }, x, y, radius, fill) {
  ctx.fillStyle = fill;
  ctx.beginPath();
  ctx.arc(x, y, radius, 0, 7);
  ctx.fill();
}

function drawNow({ ctx, px, box }, x) {
  ctx.strokeStyle = ctx.fillStyle = color("--soft");
  ctx.lineWidth = px;
  ctx.setLineDash([3 * px, 3 * px]);
  ctx.beginPath();
  ctx.moveTo(x, box.top);
  ctx.lineTo(x, box.top + box.height);
  ctx.stroke();
  ctx.setLineDash([]);
  ctx.font = `${12 * px}px system-ui, sans-serif`;
  ctx.textAlign = "right";
  ctx.fillText("now", x - 5 * px, box.top + 12 * px);
}

// The forecast that is pointed at: from the mid at its delivery to its target, with the interval there.
function drawShown({ ctx, px, x, y, box }, { said, delivered, time, start, expected, lower, upper }) {
  ctx.strokeStyle = color("--accent");
  ctx.lineWidth = 1.5 * px;
  ctx.globalAlpha = 0.5;
  ctx.beginPath();
  ctx.moveTo(x(time), box.top);
  ctx.lineTo(x(time), box.top + box.height);
  ctx.stroke();
  ctx.globalAlpha = 1;
  if (!said) return;
  ctx.lineWidth = 2.5 * px;
  ctx.beginPath();
  ctx.moveTo(x(delivered), y(start));
  ctx.lineTo(x(time), y(expected));
  ctx.moveTo(x(time), y(lower));
  ctx.lineTo(x(time), y(upper));
  for (const end of [lower, upper]) {
    ctx.moveTo(x(time) - 4 * px, y(end));
    ctx.lineTo(x(time) + 4 * px, y(end));
  }
  ctx.stroke();
}

function followPointer(u) {
  const nearest = event => {
    const time = u.posToVal(event.clientX - u.over.getBoundingClientRect().left, "x");
    const found = path.view.marks.reduce(
      (best, mark) => (!best || Math.abs(mark.time - time) < Math.abs(best.time - time) ? mark : best),
      null,
    );
    return found && Math.abs(found.time - time) < 3 ? found.id : null;
  };
  const hover = id => {
    if (id === path.hovered) return;
    path.hovered = id;
    redrawPath();
  };
  u.over.addEventListener("pointermove", event => event.pointerType === "mouse" && hover(nearest(event)));
  u.over.addEventListener("pointerleave", () => hover(null));
  u.over.addEventListener("click", event => {
    const id = nearest(event);
    if (!id) return;
    path.chosen = id;
    redrawPath();
    openReceipt(id);
  });
}

function redrawPath() {
  plots.get("path")?.redraw(false);
  describePath(state.minutes);
}

function chooseByKey(event) {
  if (!path.view) return;
  const ids = path.view.marks.map(mark => mark.id);
  const last = ids.length - 1;
  const place = ids.includes(path.chosen) ? ids.indexOf(path.chosen) : last + 1;
  const moves = {
    ArrowLeft: -1,
    ArrowDown: -1,
    ArrowRight: 1,
    ArrowUp: 1,
    PageDown: -10,
    PageUp: 10,
    Home: -Infinity,
    End: Infinity,
  };
  if (event.key === "Enter" || event.key === " ") openReceipt(path.chosen || ids[last]);
  else if (event.key === "Escape") path.chosen = null;
  else if (event.key in moves) path.chosen = ids[Math.min(last, Math.max(0, place + moves[event.key]))] || null;
  else return;
  event.preventDefault();
  redrawPath();
}
