// The nodes of a fleet in a table, paged and filtered by the server.

import { Bar, byId, el, Keyed, setState, setText, show } from "./dom.js";
import { bytes, count, duration, percent } from "./format.js";
import { headingsOf, Pager, row } from "./tables.js";

const SIZE = 50;

export class Nodes {
  /** `linkTo(name)` is the address of a node's view, `again` has the server asked anew. */
  constructor(linkTo, again) {
    this.linkTo = linkTo;
    const table = byId("nodes-table");
    this.headings = headingsOf(table);
    this.search = byId("nodes-search");
    this.state = byId("nodes-state");
    this.pager = new Pager(byId("nodes-pager"), "nodes", again);
    this.rows = new Keyed(table.tBodies[0], (name) => this.make(name));
    const anew = () => {
      this.pager.page = 0;
      again();
    };
    this.search.addEventListener("input", anew);
    this.state.addEventListener("change", anew);
  }

  /** What the server is asked for. */
  query() {
    const { page } = this.pager;
    return { page, size: SIZE, state: this.state.value, search: this.search.value.trim() };
  }

  /** Another fleet is looked at. */
  reset() {
    this.pager.page = 0;
    this.search.value = "";
    this.state.value = "";
  }

  update(nodes, total) {
    this.pager.set(total, SIZE);
    this.rows.sync(nodes, (node) => node.name);
    const isFiltered = this.search.value.trim() !== "" || this.state.value !== "";
    show(byId("nodes-none"), total === 0);
    setText(byId("nodes-none"), isFiltered ? "No node is like that." : "This fleet has no nodes.");
    setText(byId("nodes-count"), count(total));
  }

  make(name) {
    const link = el("a", { text: name, href: this.linkTo(name), "data-link": "" });
    const note = el("small", { class: "fleet-note" });
    const state = el("span");
    const since = el("small", { class: "fleet-muted" });
    const inputs = new Bar();
    const devices = new Devices();
    const figures = ["reserved", "utilisation", "cpu", "memory", "age"];
    const cells = Object.fromEntries(figures.map((figure) => [figure, el("span")]));
    const last = el("span", { class: "fleet-last" });
    const element = row(this.headings, [
      el("span", { class: "fleet-name" }, link, note),
      el("span", {}, state, since),
      inputs.element,
      cells.reserved,
      devices.element,
      ...["utilisation", "cpu", "memory", "age"].map((figure) => cells[figure]),
      last,
    ]);
    const update = (node) => {
      setText(note, node.note ?? "");
      setState(state, node.silent ? "silent" : node.state);
      setText(since, node.silent ? `was ${node.state}` : duration(node.seconds));
      inputs.set(slots(node));
      setText(cells.reserved, count(node.reserved));
      devices.update(node.devices);
      setText(cells.utilisation, utilisation(node.devices));
      setText(cells.cpu, cores(node.cpu));
      setText(cells.memory, bytes(node.rss));
      setText(cells.age, duration(node.age));
      setText(last, lastInput(node.last_input));
    };
    return { element, update };
  }
}

/** Each device's name and the share of its memory that is used. */
export class Devices {
  constructor() {
    this.element = el("span", { class: "fleet-devices" });
    this.none = el("span", { text: "–" });
    this.rows = new Keyed(this.element, () => this.make());
  }

  update(devices) {
    this.rows.sync(devices, (device) => device.uuid);
    if (devices.length) this.none.remove();
    else this.element.append(this.none);
  }

  make() {
    const name = el("span", { class: "fleet-device-name" });
    const memory = new Bar("fleet-bar-memory");
    const element = el("span", { class: "fleet-device" }, name, memory.element);
    const update = (device) => {
      setText(name, device.name ?? device.uuid);
      name.title = device.uuid;
      const used = device.total === null ? null : device.total - device.free;
      const isKnown = used !== null && device.free !== null;
      const label = isKnown ? `${bytes(used)} of ${bytes(device.total)}` : "memory unknown";
      memory.set({ value: isKnown ? used : null, most: device.total ?? 0, label });
    };
    return { element, update };
  }
}

/** A bar of the inputs that run, of the target and of the limit. */
export function slots({ running, target, slots: most }) {
  if (most === null) return { value: null, most: 0, label: count(running) };
  const parts = target === null ? [running, most] : [running, target, most];
  const told = `${count(running)} running, target ${count(target)}, ${count(most)} at most`;
  return { value: running, mark: target, most, label: parts.map(count).join(" / "), told };
}

export const cores = (share) => percent(share === null ? null : 100 * share);

export function utilisation(devices) {
  const known = devices.map((device) => device.utilisation).filter((value) => value !== null);
  return known.length ? known.map(percent).join(", ") : "–";
}

export const lastInput = (input) =>
  input === null ? "–" : `${input.task}, ${duration(input.seconds)} ago`;
