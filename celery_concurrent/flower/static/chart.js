// The chart of a fleet: its inputs against its capacity, its nodes below, marks where it changed.

import { el, setAttribute, setText, show, svg } from "./dom.js";
import { clock, count, minute, some } from "./format.js";
import { areaPath, gapPath, linePath, ticks, timeTicks } from "./lines.js";
import { Marks } from "./marks.js";

const MARGIN = { left: 44, right: 10, top: 10 };
const INPUTS = 220;
const LANE = 26;
const NODES = 84;
const AXIS = 24;
const HEIGHT = MARGIN.top + INPUTS + LANE + NODES + AXIS;

// From the bottom of each stack to its top.
const INPUT_AREAS = [
  ["running", "running"],
  ["reserved", "reserved"],
  ["backlog", "backlog"],
];
const NODE_AREAS = [
  ["ready", "ready nodes"],
  ["starting", "starting"],
  ["draining", "draining"],
];
const LINES = [
  ["target", "target"],
  ["most", "most at once"],
];

export class Chart {
  /** Draws into `figure`, with one entry for each series in `legend`. */
  constructor(figure, legend) {
    this.figure = figure;
    this.paths = {};
    this.values = {};
    this.hovered = null;
    // Not role=img: that would hide the marks in it.
    this.root = svg("svg", { class: "fleet-chart", role: "group", height: HEIGHT });
    this.root.append(patterns());
    this.grid = svg("g", { class: "chart-grid", "aria-hidden": "true" });
    this.unknown = svg("path", { class: "chart-unknown" });
    const series = svg("g", { "clip-path": "url(#chart-clip)" }, this.unknown);
    for (const [name] of [...INPUT_AREAS, ...LINES, ...NODE_AREAS]) series.append(this.path(name));
    this.cross = svg("path", { class: "chart-cross" });
    this.root.append(this.grid, series, this.cross);
    this.marks = new Marks(this.root, figure);
    figure.prepend(this.root);
    for (const entry of [...INPUT_AREAS, ...LINES, ...NODE_AREAS]) legend.append(this.entry(entry));
    this.time = el("li", { class: "chart-time" });
    legend.append(this.time);
    new ResizeObserver(() => this.redraw()).observe(figure);
    this.root.addEventListener("pointermove", (event) => this.hover(event));
    this.root.addEventListener("pointerleave", () => this.hover(null));
  }

  /** `seconds` before `at` are shown. */
  draw(history, decisions, at, seconds) {
    this.gap = 3 * (seconds > 300 ? 10 : 1) + 5;
    this.shown = { history: untilNow(history, at, this.gap), decisions, at, seconds };
    this.redraw();
  }

  redraw() {
    const width = Math.floor(this.figure.clientWidth);
    if (!this.shown || width < 120) return;
    const { history, decisions, at, seconds } = this.shown;
    setAttribute(this.root, "width", width);
    setAttribute(this.root, "viewBox", `0 0 ${width} ${HEIGHT}`);
    const right = width - MARGIN.right;
    this.x = (time) => MARGIN.left + ((time - at + seconds) / seconds) * (right - MARGIN.left);
    this.clip(right);
    this.drawInputs(history);
    this.drawNodes(history);
    this.drawAxes(right, at, seconds);
    const lane = MARGIN.top + INPUTS + LANE / 2 + 1;
    const shown = decisions.filter((each) => each.at > at - seconds && each.at <= at);
    this.marks.draw(shown, this.x, lane, [MARGIN.top, HEIGHT - AXIS], width);
    this.tell();
  }

  drawInputs(history) {
    const { at } = history;
    const demand = at.map((_, i) => stacked(history, ["running", "reserved", "backlog"], i));
    const highest = Math.max(1, ...demand, ...history.target);
    // A limit far above all else would press the rest flat; the legend tells its figure.
    const limit = Math.max(0, ...history.most);
    this.inputTicks = ticks(limit > 3 * highest ? highest : Math.max(highest, limit), 4);
    const y = scale(this.inputTicks, MARGIN.top, INPUTS);
    const below = at.map(() => 0);
    const unknown = (i) => history.backlog[i] === null;
    const points = { at, x: this.x, y, gap: this.gap };
    const running = history.running;
    const taken = at.map((_, i) => running[i] + history.reserved[i]);
    this.set("running", areaPath(points, below, running));
    this.set("reserved", areaPath(points, running, taken));
    this.set("backlog", areaPath(points, taken, demand, unknown));
    for (const [name] of LINES) this.set(name, linePath(points, history[name]));
    setAttribute(this.unknown, "d", gapPath(points, unknown, MARGIN.top, INPUTS));
    this.inputY = y;
  }

  drawNodes(history) {
    let below = history.at.map(() => 0);
    const names = NODE_AREAS.map(([name]) => name);
    const all = history.at.map((_, i) => stacked(history, names, i));
    this.nodeTicks = ticks(Math.max(1, ...all), 3);
    this.nodeY = scale(this.nodeTicks, MARGIN.top + INPUTS + LANE, NODES);
    const points = { at: history.at, x: this.x, y: this.nodeY, gap: this.gap };
    for (const name of names) {
      const top = below.map((value, i) => value + history[name][i]);
      this.set(name, areaPath(points, below, top));
      below = top;
    }
  }

  drawAxes(right, at, seconds) {
    const parts = [];
    for (const [values, y] of [
      [this.inputTicks, this.inputY],
      [this.nodeTicks, this.nodeY],
    ]) {
      for (const value of values) {
        const place = y(value);
        parts.push(svg("line", { x1: MARGIN.left, x2: right, y1: place, y2: place }));
        const label = { x: MARGIN.left - 8, y: place + 4, class: "chart-y", text: count(value) };
        parts.push(svg("text", label));
      }
    }
    const bottom = HEIGHT - AXIS;
    for (const time of timeTicks(at - seconds, at, Math.max(2, Math.floor(right / 130)))) {
      const place = this.x(time);
      parts.push(svg("line", { x1: place, x2: place, y1: bottom, y2: bottom + 4 }));
      const isInside = place > MARGIN.left + 16 && place < right - 16;
      if (isInside) {
        parts.push(svg("text", { x: place, y: HEIGHT - 5, class: "chart-x", text: minute(time) }));
      }
    }
    const title = { class: "chart-title", x: MARGIN.left };
    parts.push(svg("text", { ...title, y: MARGIN.top + INPUTS + LANE - 5, text: "nodes" }));
    this.grid.replaceChildren(...parts);
  }

  hover(event) {
    const box = this.root.getBoundingClientRect();
    this.hovered = event === null ? null : event.clientX - box.left;
    if (this.shown && this.x) this.tell();
  }

  /** The legend's figures: now, or where the pointer is. */
  tell() {
    const { history } = this.shown;
    const place = nearest(history.at.map(this.x), this.hovered);
    for (const [name, node] of Object.entries(this.values)) {
      const value = place === null ? null : history[name][place];
      setText(node, name === "backlog" && value === null ? "unknown" : count(value));
    }
    const isHovering = this.hovered !== null && place !== null;
    setText(this.time, isHovering ? `at ${clock(history.at[place])}` : "now");
    show(this.time, place !== null);
    const x = isHovering ? this.x(history.at[place]).toFixed(1) : null;
    setAttribute(this.cross, "d", isHovering ? `M${x} ${MARGIN.top}V${HEIGHT - AXIS}` : "");
  }

  /** What it shows, in a sentence. */
  describe(summary) {
    setAttribute(this.root, "aria-label", `Inputs against capacity, and nodes. ${summary}`);
  }

  // Samples may be older than what is shown, and a limit above it.
  clip(right) {
    this.clipping ??= this.root.querySelector("#chart-clip rect");
    setAttribute(this.clipping, "width", Math.max(0, right - MARGIN.left));
  }

  path(name) {
    this.paths[name] = svg("path", { class: `chart-${name}` });
    return this.paths[name];
  }

  set(name, d) {
    setAttribute(this.paths[name], "d", d);
  }

  entry([name, label]) {
    this.values[name] = el("b");
    const swatch = svg("svg", { class: "chart-swatch", "aria-hidden": "true", viewBox: "0 0 22 12" });
    const isLine = LINES.some(([line]) => line === name);
    swatch.append(
      svg("path", { class: `chart-${name}`, d: isLine ? "M0 6H22" : "M1 1H21V11H1Z" }),
    );
    return el("li", {}, swatch, el("span", { text: label }), this.values[name]);
  }
}

/** A sentence about a fleet's inputs and nodes. */
export function summary(fleet) {
  const { starting, ready, draining } = fleet.counts;
  const inputs =
    fleet.demand === null
      ? `Demand unknown, ${some(fleet.running, "input")} running`
      : `${some(fleet.demand, "input")}: ${count(fleet.backlog)} waiting, ` +
        `${count(fleet.reserved)} reserved, ${count(fleet.running)} running`;
  const nodes = [`${count(ready)} ready`];
  if (starting) nodes.push(`${count(starting)} starting`);
  if (draining) nodes.push(`${count(draining)} draining`);
  return `${inputs}. Nodes: ${nodes.join(", ")}.`;
}

/** The last sample holds until now, unless it is too old for that. */
function untilNow(history, at, gap) {
  const last = history.at.at(-1);
  if (last === undefined || last >= at || at - last > gap) return history;
  const repeated = ([name, values]) => [name, [...values, name === "at" ? at : values.at(-1)]];
  return Object.fromEntries(Object.entries(history).map(repeated));
}

const stacked = (history, names, i) =>
  names.reduce((sum, name) => sum + (history[name][i] ?? 0), 0);

const scale = (values, top, height) => {
  const highest = values[values.length - 1];
  return (value) => top + height - (value / highest) * height;
};

function nearest(places, wanted) {
  if (!places.length) return null;
  if (wanted === null) return places.length - 1;
  let best = 0;
  for (let i = 1; i < places.length; i += 1) {
    if (Math.abs(places[i] - wanted) < Math.abs(places[best] - wanted)) best = i;
  }
  return best;
}

/** Fillings that differ without colour, too. */
function patterns() {
  const pattern = (id, size, ...shapes) =>
    svg("pattern", { id, width: size, height: size, patternUnits: "userSpaceOnUse" }, ...shapes);
  const stripes = (id, className) =>
    pattern(
      id,
      6,
      svg("rect", { class: `${className} chart-soft`, width: 6, height: 6 }),
      svg("path", { class: `${className} chart-stripe`, d: "M-1 1L1 -1M0 6L6 0M5 7L7 5" }),
    );
  const dots = (id, className) =>
    pattern(
      id,
      6,
      svg("rect", { class: `${className} chart-soft`, width: 6, height: 6 }),
      svg("circle", { class: `${className} chart-dot`, cx: 3, cy: 3, r: 1.1 }),
    );
  const clip = { x: MARGIN.left, y: MARGIN.top - 2, height: HEIGHT - AXIS - MARGIN.top + 3 };
  return svg(
    "defs",
    {},
    stripes("fill-reserved", "ink-reserved"),
    dots("fill-backlog", "ink-backlog"),
    stripes("fill-starting", "ink-starting"),
    dots("fill-draining", "ink-draining"),
    stripes("fill-unknown", "ink-unknown"),
    svg("clipPath", { id: "chart-clip" }, svg("rect", clip)),
  );
}
