// The marks of a chart: where a fleet got more nodes, or fewer, and why.

import { el, Keyed, setAttribute, setText, show, svg } from "./dom.js";
import { clock, count } from "./format.js";

const SHAPES = { start: "M0 -6L6 5H-6Z", drain: "M0 6L6 -5H-6Z" };

export class Marks {
  /** In the drawing `root`; what a mark says is shown in `figure`. */
  constructor(root, figure) {
    this.figure = figure;
    this.group = svg("g", { class: "chart-marks" });
    this.tip = el("div", { class: "chart-tip", role: "tooltip", id: "chart-tip", hidden: "" });
    this.keyed = new Keyed(this.group, () => this.make());
    this.group.addEventListener("keydown", (event) => this.walk(event));
    root.append(this.group);
    figure.append(this.tip);
  }

  draw(decisions, x, lane, [top, bottom], width) {
    this.width = width;
    const changes = decisions.filter((each) => each.before !== each.after);
    const items = changes.map((each) => ({ ...each, x: x(each.at), lane, top, bottom }));
    this.keyed.sync(items, (each) => `${each.at} ${each.before} ${each.after}`);
    // One stop of the Tab key for all; the arrows go from mark to mark.
    const marks = [...this.group.children];
    if (!marks.some((mark) => mark.getAttribute("tabindex") === "0")) {
      marks.at(-1)?.setAttribute("tabindex", "0");
    }
    if (!this.tip.hidden && !this.group.contains(this.told)) show(this.tip, false);
  }

  make() {
    const line = svg("path", { class: "chart-mark-line" });
    const shape = svg("path", { class: "chart-mark" });
    const tell = () => this.tell(element);
    const element = svg(
      "g",
      { role: "img", tabindex: "-1", on: { pointerenter: tell, focus: tell } },
      line,
      svg("rect", { class: "chart-mark-room", x: -10, y: -11, width: 20, height: 22 }),
      shape,
    );
    for (const gone of ["pointerleave", "blur"]) {
      element.addEventListener(gone, () => show(this.tip, false));
    }
    const update = (change) => {
      const kind = change.after > change.before ? "start" : "drain";
      setAttribute(element, "class", `chart-mark-${kind}`);
      setAttribute(element, "transform", `translate(${change.x.toFixed(1)} ${change.lane})`);
      setAttribute(shape, "d", SHAPES[kind]);
      setAttribute(line, "d", `M0 ${change.top - change.lane}V${change.bottom - change.lane}`);
      const said = sentence(change);
      setAttribute(element, "aria-label", said);
    };
    return { element, update };
  }

  tell(mark) {
    this.told = mark;
    setText(this.tip, mark.getAttribute("aria-label"));
    show(this.tip, true);
    const box = mark.getBoundingClientRect();
    const around = this.figure.getBoundingClientRect();
    const middle = box.left + box.width / 2 - around.left;
    const half = this.tip.offsetWidth / 2;
    const left = Math.min(Math.max(middle, half + 4), this.width - half - 4);
    this.tip.style.left = `${left}px`;
    const lane = new DOMPoint(0, 0).matrixTransform(mark.getScreenCTM());
    this.tip.style.top = `${lane.y - around.top - 14}px`;
  }

  walk(event) {
    const marks = [...this.group.children];
    const here = marks.indexOf(document.activeElement);
    const step = { ArrowLeft: here - 1, ArrowRight: here + 1, Home: 0, End: marks.length - 1 };
    const next = marks[step[event.key]];
    if (here < 0 || !next) return;
    event.preventDefault();
    marks[here].setAttribute("tabindex", "-1");
    next.setAttribute("tabindex", "0");
    next.focus();
  }
}

const sentence = ({ at, before, after, reason }) =>
  `${clock(at)}, ${count(before)} → ${count(after)} nodes: ${reason}`;
