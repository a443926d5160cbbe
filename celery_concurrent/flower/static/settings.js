// What a fleet is set to, and the form that changes it. What is being typed is left alone.

import { address } from "./api.js";
import { perform } from "./dialogs.js";
import { byId, el, Keyed, setAttribute, setText, show } from "./dom.js";

const CHANGEABLE = ["min_nodes", "max_nodes", "buffer_nodes", "scaledown_window"];
const UNITS = { scaledown_window: " s" };

export class Settings {
  /** `done` is called after a change. */
  constructor(done) {
    this.done = done;
    this.fields = CHANGEABLE.map((name) => byId(`knob-${name}`));
    this.others = new Keyed(byId("fleet-knobs"), (name) => knob(name));
    byId("fleet-settings").addEventListener("submit", (event) => {
      event.preventDefault();
      this.change();
    });
    byId("fleet-reset").addEventListener("click", () => this.reset());
    byId("fleet-drain").addEventListener("click", () => this.drain());
    byId("fleet-resume").addEventListener("click", () => this.resume());
    for (const field of this.fields) {
      field.addEventListener("input", () => {
        field.dataset.typed = "";
        this.complain(null);
      });
    }
  }

  /** Another fleet is looked at: what was typed for the one before is not for it. */
  forget() {
    for (const field of this.fields) delete field.dataset.typed;
    this.complain(null);
  }

  update(fleet) {
    const isOther = this.fleet?.queue !== fleet.queue;
    this.fleet = fleet;
    if (isOther) this.forget();
    show(byId("fleet-settings-card"), fleet.kept);
    for (const field of this.fields) {
      const isOverridden = field.name in fleet.overrides;
      const told = fleet.knobs[field.name];
      const value = typeof told === "number" ? told : "";
      if (!("typed" in field.dataset) && field.value !== String(value)) field.value = value;
      show(byId(`over-${field.name}`), isOverridden);
    }
    const overridden = Object.keys(fleet.overrides);
    show(byId("fleet-reset"), overridden.length > 0);
    const told = overridden.map((name) => `${name}=${fleet.overrides[name]}`).join(", ");
    setText(byId("fleet-overrides"), told || "none");
    const rest = Object.entries(fleet.knobs).filter(([name]) => !CHANGEABLE.includes(name));
    this.others.sync(rest, ([name]) => name);
    const isDrained = fleet.state === "drained";
    show(byId("fleet-drain"), !isDrained);
    show(byId("fleet-resume"), isDrained);
  }

  async change() {
    const { queue, knobs } = this.fleet;
    const bad = this.fields.find((field) => field.validity.badInput);
    if (bad) return this.complain(`${bad.name} must be a number`);
    const changed = this.fields.filter((field) => {
      return "typed" in field.dataset && field.value !== String(knobs[field.name] ?? "");
    });
    if (!changed.length) return this.complain("Nothing was changed.");
    const values = {};
    const told = changed.map(({ name, value }) => {
      values[name] = value === "" ? null : Number(value);
      const now = value === "" ? "as the app says" : value + (UNITS[name] ?? "");
      return `${name}: ${knobs[name]}${UNITS[name] ?? ""} → ${now}`;
    });
    const text = `${told.join("; ")}. It holds until it is reset, beyond a restart, too.`;
    return this.ask({ title: `Change the fleet ${queue}?`, text, verb: "Change" }, { values });
  }

  reset() {
    const { queue, overrides } = this.fleet;
    const told = Object.keys(overrides).join(", ");
    const text = `It goes by what the app says again. This takes back: ${told}.`;
    return this.ask(
      { title: `Reset the fleet ${queue}?`, text, verb: "Reset" },
      { values: {}, reset: true },
    );
  }

  drain() {
    const { queue, node_count: nodes } = this.fleet;
    const text =
      `Its nodes (${nodes} now) take no more inputs, finish those that they have, and leave. ` +
      "New inputs wait until the fleet is resumed.";
    const place = address`/api/fleet/${queue}/drain`;
    return this.act({ title: `Drain the fleet ${queue}?`, text, verb: "Drain", danger: true, place });
  }

  resume() {
    const { queue } = this.fleet;
    const text = "It follows its demand again, and starts nodes where inputs wait.";
    const place = address`/api/fleet/${queue}/resume`;
    return this.act({ title: `Resume the fleet ${queue}?`, text, verb: "Resume", place });
  }

  ask(question, body) {
    const place = address`/api/fleet/${this.fleet.queue}`;
    return this.act({ ...question, place, body, refused: (message) => this.complain(message) });
  }

  async act(control) {
    if (await perform(control)) {
      this.forget();
      this.done();
    }
  }

  /** Say what is wrong beside the form, and at the field that it names. */
  complain(message) {
    setText(byId("fleet-settings-error"), message ?? "");
    for (const field of this.fields) {
      const isIt = message !== null && message.includes(field.name);
      field.classList.toggle("is-invalid", isIt);
      setAttribute(field, "aria-invalid", isIt ? "true" : null);
    }
  }
}

function knob(name) {
  const value = el("dd");
  const element = el("div", {}, el("dt", { text: name }), value);
  return { element, update: ([, said]) => setText(value, said) };
}
