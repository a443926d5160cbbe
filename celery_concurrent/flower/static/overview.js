// All fleets in a table: what there is, who keeps it, and which one is looked at.

import { Bar, byId, el, Keyed, setAttribute, setState, setText, show } from "./dom.js";
import { count, some } from "./format.js";
import { headingsOf, Order, Pager, row } from "./tables.js";

const SIZE = 25;
const VALUES = {
  queue: (fleet) => fleet.queue,
  state: (fleet) => fleet.state,
  demand: (fleet) => fleet.demand ?? fleet.running + fleet.reserved,
  running: (fleet) => fleet.running,
  nodes: (fleet) => fleet.node_count,
  desired: (fleet) => fleet.desired,
};

export class Overview {
  /** `linkTo(queue)` is the address of a fleet's view. */
  constructor(linkTo) {
    this.linkTo = linkTo;
    this.fleets = [];
    const table = byId("fleets-table");
    this.headings = headingsOf(table);
    const again = () => this.fill();
    this.order = new Order(table, again);
    this.pager = new Pager(byId("fleets-pager"), "fleets", again);
    this.search = byId("fleets-search");
    this.search.addEventListener("input", again);
    this.rows = new Keyed(table.tBodies[0], (queue) => this.make(queue));
  }

  update({ autoscalers, fleets }, chosen) {
    this.fleets = fleets;
    this.chosen = chosen;
    setText(byId("fleets-count"), count(fleets.length));
    show(byId("fleets-empty"), fleets.length === 0);
    show(byId("fleets-card"), fleets.length > 0);
    show(byId("fleets-tools"), fleets.length > 5);
    setText(byId("fleet-autoscalers"), autoscalersIn(autoscalers));
    this.fill();
  }

  fill() {
    const words = this.search.value.trim().toLowerCase();
    const found = this.fleets.filter((fleet) =>
      [fleet.queue, fleet.state, ...fleet.tasks].some((text) => text.toLowerCase().includes(words)),
    );
    const ordered = this.order.apply(found, VALUES);
    const [first, last] = this.pager.set(ordered.length, SIZE);
    this.rows.sync(ordered.slice(first, last), (fleet) => fleet.queue);
    show(byId("fleets-none"), this.fleets.length > 0 && found.length === 0);
  }

  make(queue) {
    const link = el("a", { text: queue, href: this.linkTo(queue), "data-link": "" });
    const state = el("span");
    const [demand, running, nodes, desired] = [el("span"), el("span"), el("span"), el("span")];
    const bar = new Bar();
    const reason = el("span", { class: "fleet-reason" });
    const element = row(this.headings, [
      link,
      state,
      demand,
      bar.element,
      running,
      nodes,
      desired,
      reason,
    ]);
    const update = (fleet) => {
      const isChosen = fleet.queue === this.chosen;
      element.classList.toggle("fleet-chosen", isChosen);
      setAttribute(link, "aria-current", isChosen ? "true" : null);
      setState(state, stateOf(fleet));
      setText(demand, fleet.demand === null ? "unknown" : count(fleet.demand));
      setText(running, count(fleet.running));
      setText(nodes, nodesIn(fleet.counts));
      setText(desired, fleet.kept ? count(fleet.desired) : "–");
      setText(reason, fleet.reason || (fleet.kept ? "–" : "no autoscaler keeps it"));
      bar.set(capacity(fleet));
    };
    return { element, update };
  }
}

/** A fleet's state in a word; one whose autoscaler says nothing may be in any. */
export const stateOf = (fleet) => (fleet.silent ? "silent" : fleet.state);

export function nodesIn({ starting, ready, draining }) {
  const parts = [`${count(ready)} ready`];
  if (starting) parts.push(`${count(starting)} starting`);
  if (draining) parts.push(`${count(draining)} draining`);
  return parts.join(", ");
}

function capacity(fleet) {
  const live = fleet.counts.starting + fleet.counts.ready;
  const [target, most] = [fleet.target_inputs * live, fleet.max_inputs * live];
  const value = fleet.demand ?? fleet.running + fleet.reserved;
  return {
    value,
    mark: target,
    most: Math.max(most, value),
    label: most ? `of ${count(target)}` : "no capacity",
    told: `${some(value, "input")}, ${count(target)} is the target, ${count(most)} at most`,
  };
}

function autoscalersIn(autoscalers) {
  if (!autoscalers.length) return "No autoscaler has been heard.";
  const told = autoscalers.map(({ name, pid, queues, devices, silent }) => {
    const parts = [pid === null ? name : `${name}, pid ${pid}`, some(queues.length, "fleet")];
    if (devices.length) parts.push(some(devices.length, "device"));
    const faulty = devices.filter((device) => device.fault !== null).length;
    if (faulty) parts.push(`${count(faulty)} faulty`);
    if (silent) parts.push("silent");
    return parts.join(", ");
  });
  return `Kept by ${told.join("; ")}`;
}
