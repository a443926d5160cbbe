// One fleet: its figures, its chart, its decisions, its settings and its nodes.

import { Chart, summary } from "./chart.js";
import { byId, el, Keyed, setState, setText, show } from "./dom.js";
import { clock, count } from "./format.js";
import { Nodes } from "./nodes.js";
import { stateOf } from "./overview.js";
import { Settings } from "./settings.js";
import { headingsOf, row } from "./tables.js";

// Seconds between two announcements to who listens to the page.
const QUIET = 15;

export class Detail {
  constructor(linkTo, again) {
    this.chart = new Chart(byId("fleet-figure"), byId("fleet-legend"));
    this.nodes = new Nodes(linkTo, again);
    this.settings = new Settings(again);
    const table = byId("decisions-table");
    const headings = headingsOf(table);
    this.decisions = new Keyed(table.tBodies[0], () => decisionRow(headings));
    this.queue = null;
    this.announcedAt = 0;
  }

  /** Which fleet is looked at from now on. */
  choose(queue) {
    if (queue === this.queue) return;
    if (this.queue !== null) this.nodes.reset();
    this.queue = queue;
  }

  update({ at, fleet, nodes, nodes_total: total, history }, seconds) {
    show(byId("fleet-detail"), true);
    setText(byId("fleet-name"), fleet.queue);
    setState(byId("fleet-state"), stateOf(fleet));
    setText(byId("fleet-tasks"), fleet.tasks.join(", "));
    this.figures(fleet);
    this.warnings(fleet);
    this.chart.draw(history, fleet.decisions, at, seconds);
    const told = summary(fleet);
    this.chart.describe(told);
    this.announce(`${fleet.queue}. ${told}`, at);
    const latest = [...fleet.decisions].reverse();
    this.decisions.sync(latest, (each) => `${each.at} ${each.before} ${each.after}`);
    show(byId("decisions-none"), latest.length === 0);
    show(byId("decisions-table"), latest.length > 0);
    this.settings.update(fleet);
    this.nodes.update(nodes, total);
  }

  figures(fleet) {
    const { starting, ready, draining } = fleet.counts;
    const live = starting + ready;
    setText(byId("figure-demand"), fleet.demand === null ? "unknown" : count(fleet.demand));
    setText(
      byId("note-demand"),
      `${count(fleet.backlog)} waiting · ${count(fleet.reserved)} reserved`,
    );
    setText(byId("figure-running"), count(fleet.running));
    setText(
      byId("note-running"),
      `target ${count(fleet.target_inputs * live)} · at most ${count(fleet.max_inputs * live)}`,
    );
    setText(byId("figure-nodes"), count(ready));
    setText(byId("note-nodes"), `${count(starting)} starting · ${count(draining)} draining`);
    setText(byId("figure-desired"), fleet.kept ? count(fleet.desired) : "–");
    const { min_nodes: least, max_nodes: most } = fleet;
    const range = `of ${count(least)} to ${count(most)}`;
    setText(byId("note-desired"), fleet.kept ? range : "no autoscaler keeps it");
    setText(byId("fleet-reason"), fleet.reason);
    show(byId("fleet-reason-line"), fleet.reason !== "");
  }

  warnings(fleet) {
    const said = [];
    const speaker = fleet.kept ? "Its autoscaler has" : "Its nodes have";
    if (fleet.silent) said.push(`${speaker} said nothing for a while: this may be old.`);
    if (fleet.missing !== null) said.push(`${fleet.missing}.`);
    if (fleet.crashes === 1) said.push("A node has crashed.");
    if (fleet.crashes > 1) said.push(`${count(fleet.crashes)} crashes in a row.`);
    setText(byId("fleet-warning-text"), said.join(" "));
    const lines = fleet.last_lines.join("\n");
    setText(byId("fleet-last-lines"), lines);
    show(byId("fleet-last-lines"), lines !== "");
    show(byId("fleet-warning"), said.length > 0);
  }

  announce(told, at) {
    setText(byId("fleet-summary"), told);
    if (at - this.announcedAt < QUIET) return;
    this.announcedAt = at;
    setText(byId("fleet-announcement"), told);
  }
}

function decisionRow(headings) {
  const [time, change, reason] = [el("time"), el("span", { class: "fleet-change" }), el("span")];
  const element = row(headings, [time, change, reason]);
  const update = (each) => {
    setText(time, clock(each.at));
    setText(change, `${count(each.before)} → ${count(each.after)}`);
    change.dataset.way = each.after > each.before ? "more" : "fewer";
    setText(reason, each.reason);
  };
  return { element, update };
}
