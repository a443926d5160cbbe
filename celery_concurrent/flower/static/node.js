// One node: its slots by task, the inputs that run in it, and what can be done to both.

import { address } from "./api.js";
import { perform } from "./dialogs.js";
import { Bar, byId, el, Keyed, setState, setText, show } from "./dom.js";
import { bytes, count, duration, some } from "./format.js";
import { Log } from "./log.js";
import { cores, Devices, lastInput, slots, utilisation } from "./nodes.js";
import { headingsOf, row } from "./tables.js";

export class NodeView {
  /** `again` has the server asked anew. */
  constructor(again) {
    this.again = again;
    this.log = new Log();
    this.devices = new Devices();
    byId("node-devices").append(this.devices.element);
    this.slots = new Bar();
    byId("node-slots").append(this.slots.element);
    this.tasks = keyed("node-tasks", taskRow);
    this.inputs = keyed("inputs-table", (headings) => this.inputRow(headings));
    byId("node-drain").addEventListener("click", () => this.drain());
    byId("node-stop").addEventListener("click", () => this.stop());
  }

  update({ node, inputs, inputs_total: total, inputs_error: error }) {
    this.node = node;
    show(byId("node-detail"), true);
    setText(byId("node-name"), node.name);
    setState(byId("node-state"), node.silent ? "silent" : node.state);
    setText(byId("node-note"), node.note ?? "");
    show(byId("node-note"), node.note !== null);
    this.facts(node);
    const tasks = Object.entries(node.tasks).map(([group, told]) => ({ group, ...told }));
    this.tasks.sync(tasks, (task) => task.group);
    show(byId("node-tasks-card"), tasks.length > 0);
    this.inputs.sync(inputs, (input) => input.id);
    show(byId("inputs-table"), inputs.length > 0);
    setText(byId("inputs-count"), count(total));
    setText(byId("inputs-told"), inputsTold(inputs.length, total, error));
    show(byId("node-drain"), node.state !== "draining");
    show(byId("node-stop"), node.kept);
  }

  facts(node) {
    this.slots.set(slots(node));
    this.devices.update(node.devices);
    const facts = {
      reserved: `${count(node.reserved)} reserved, ${count(node.scheduled)} for later`,
      since: `${duration(node.seconds)} in this state, ${duration(node.age)} old`,
      process: `pid ${node.pid ?? "unknown"} on ${node.host}`,
      keeper: keeper(node),
      queues: node.queues.join(", "),
      cpu: cores(node.cpu),
      memory: bytes(node.rss),
      utilisation: utilisation(node.devices),
      last: lastInput(node.last_input),
    };
    for (const [name, told] of Object.entries(facts)) setText(byId(`node-${name}`), told);
  }

  inputRow(headings) {
    let current;
    const [id, state, age] = [el("code"), el("span"), el("span")];
    const task = el("span", { class: "fleet-task" });
    const button = (text, kind, act) =>
      el("button", {
        type: "button",
        class: `btn btn-sm ${kind}`,
        text,
        on: { click: () => act(current) },
      });
    const log = button("Log", "btn-outline-secondary", (input) => this.log.open(input, this.node.name));
    const cancel = button("Cancel", "btn-outline-danger", (input) => this.cancel(input));
    cancel.dataset.control = "";
    const element = row(headings, [
      id,
      task,
      state,
      age,
      el("span", { class: "fleet-actions" }, log, cancel),
    ]);
    const update = (input) => {
      current = input;
      setText(id, input.id);
      setText(task, input.task);
      setState(state, input.state);
      setText(age, duration(input.seconds));
      log.setAttribute("aria-label", `Log of ${input.id}`);
      cancel.setAttribute("aria-label", `Cancel ${input.id}`);
    };
    return { element, update };
  }

  cancel({ id, task, state }) {
    const what = state === "running" ? "It is interrupted where it is." : "It does not start.";
    return this.act({
      title: "Cancel this input?",
      text: `${task}, ${id}. ${what} Its result tells that it was revoked; other inputs go on.`,
      verb: "Cancel the input",
      danger: true,
      place: address`/api/input/${id}/cancel`,
    });
  }

  drain() {
    const { name, running } = this.node;
    return this.act({
      title: "Drain this node?",
      text:
        `${name} takes no more inputs, finishes the ${some(running, "input")} that it runs, ` +
        "and leaves. Its fleet starts another one where the demand asks for it.",
      verb: "Drain",
      danger: true,
      place: address`/api/fleet/node/${name}/drain`,
    });
  }

  stop() {
    const { name, running } = this.node;
    return this.act({
      title: "Stop this node now?",
      text:
        `${name} ends at once. The ${some(running, "input")} that it runs are cut off; those ` +
        "that are acknowledged late run again on another node, from their beginning.",
      verb: "Stop now",
      danger: true,
      place: address`/api/fleet/node/${name}/stop`,
    });
  }

  async act(control) {
    if (await perform(control)) this.again();
  }
}

function keyed(id, make) {
  const table = byId(id);
  const headings = headingsOf(table);
  return new Keyed(table.tBodies[0], () => make(headings));
}

function taskRow(headings) {
  const [group, reserved, bar] = [el("span"), el("span"), new Bar()];
  const element = row(headings, [group, bar.element, reserved]);
  const update = (task) => {
    setText(group, task.group);
    bar.set(slots(task));
    setText(reserved, count(task.reserved));
  };
  return { element, update };
}

function keeper({ kept, adopted }) {
  if (!kept) return "nobody: started by hand";
  return adopted ? "the autoscaler, which has adopted it" : "the autoscaler";
}

function inputsTold(shown, total, error) {
  if (error !== null) return error;
  if (!total) return "No input is in this node.";
  return shown < total ? `The first ${count(shown)} of ${count(total)}.` : "";
}
