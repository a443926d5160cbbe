// The dialog with the lines that one input has logged.

import { address, get, Problem } from "./api.js";
import { byId, el, setText } from "./dom.js";
import { clock, some } from "./format.js";

const EVERY = 1000;

export class Log {
  constructor() {
    this.dialog = byId("fleet-log");
    this.lines = byId("fleet-log-lines");
    this.dialog.addEventListener("close", () => this.stop());
    byId("fleet-log-close").addEventListener("click", () => this.dialog.close());
  }

  /** Show what this input of this node has logged, and go on showing it until it is closed. */
  open(input, node) {
    this.stop();
    this.input = input;
    this.node = node;
    this.lines.replaceChildren();
    this.next = 0;
    setText(byId("fleet-log-title"), input.task);
    setText(byId("fleet-log-id"), `input ${input.id} on ${node}`);
    setText(byId("fleet-log-status"), "Asking the node…");
    this.giving = new AbortController();
    this.dialog.showModal();
    this.lines.focus();
    this.refresh(this.giving.signal);
  }

  stop() {
    clearTimeout(this.timer);
    this.giving?.abort();
  }

  async refresh(signal) {
    try {
      const place = address`/fleet/data/input/${this.input.id}/log?node=${this.node}`;
      this.fill(await get(place, signal));
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof Problem)) throw error;
      setText(byId("fleet-log-status"), `${error.message}, trying again`);
    }
    if (!signal.aborted) this.timer = setTimeout(() => this.refresh(signal), EVERY);
  }

  fill({ lines, dropped, error }) {
    const { lines: list } = this;
    const isAtEnd = list.scrollTop + list.clientHeight >= list.scrollHeight - 4;
    // The node keeps the last ones: what it dropped goes here, too.
    lines.forEach((line, i) => {
      if (dropped + i >= this.next) list.append(lineOf(line, dropped + i));
    });
    this.next = Math.max(this.next, dropped + lines.length);
    while (list.firstElementChild && Number(list.firstElementChild.dataset.number) < dropped) {
      list.firstElementChild.remove();
    }
    if (isAtEnd) list.scrollTop = list.scrollHeight;
    setText(byId("fleet-log-status"), status(list.childElementCount, dropped, error));
  }
}

function status(kept, dropped, error) {
  if (error !== null) return error;
  if (!kept) return "It has logged nothing so far.";
  const earlier = dropped ? `, ${some(dropped, "earlier line")} no longer kept` : "";
  return some(kept, "line") + earlier;
}

function lineOf({ at, level, logger, text }, number) {
  return el(
    "li",
    { "data-number": number, "data-level": level },
    el("time", { text: clock(at) }),
    el("span", { class: "fleet-log-level", text: level }),
    el("span", { class: "fleet-log-logger", text: logger }),
    el("span", { class: "fleet-log-text", text }),
  );
}
