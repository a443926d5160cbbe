// What tables of this page have in common: pages, an order, cells that know their heading.

import { el, setAttribute, setText, show } from "./dom.js";
import { count } from "./format.js";

/** A row whose cells carry their headings, for the narrow screen, where rows are stacked. */
export function row(headings, cells) {
  const filled = cells.map((cell, i) => {
    const label = headings[i] || null;
    return el("td", { "data-label": label, class: label ? null : "fleet-cell-actions" }, cell);
  });
  return el("tr", {}, ...filled);
}

/** The words in a table's head. */
export const headingsOf = (table) =>
  [...table.tHead.rows[0].cells].map((cell) => cell.dataset.heading ?? cell.textContent.trim());

/** "26–50 of 120" and two buttons; hidden where one page holds all. */
export class Pager {
  constructor(parent, noun, turned) {
    this.page = 0;
    const turn = (step) => () => {
      this.page += step;
      turned();
    };
    const button = (text, label, step) =>
      el("button", {
        type: "button",
        class: "btn btn-sm btn-outline-secondary",
        "aria-label": label,
        text,
        on: { click: turn(step) },
      });
    this.before = button("Previous", `Previous ${noun}`, -1);
    this.after = button("Next", `Next ${noun}`, 1);
    this.told = el("span", { role: "status" });
    this.noun = noun;
    this.parent = parent;
    parent.append(this.told, this.before, this.after);
  }

  /** Keep the page within what there is; the first and the last place on it. */
  set(total, size) {
    this.page = Math.max(0, Math.min(this.page, Math.ceil(total / size) - 1));
    const first = this.page * size;
    const last = Math.min(total, first + size);
    show(this.parent, total > size);
    setText(this.told, `${count(first + 1)}–${count(last)} of ${count(total)} ${this.noun}`);
    // Not `disabled`: that would take the focus from who has come to the end.
    this.usable(this.before, this.page > 0);
    this.usable(this.after, last < total);
    return [first, last];
  }

  usable(button, isUsable) {
    setAttribute(button, "aria-disabled", isUsable ? null : "true");
    button.classList.toggle("disabled", !isUsable);
  }
}

/** Headings with buttons that order the rows; `changed` is called when one was pressed. */
export class Order {
  constructor(table, changed) {
    this.key = null;
    this.isDescending = false;
    this.headings = [...table.querySelectorAll("th[data-sort]")];
    for (const heading of this.headings) {
      const text = heading.textContent.trim();
      const press = () => {
        this.press(heading.dataset.sort);
        changed();
      };
      const button = el("button", { type: "button", class: "fleet-sort", text, on: { click: press } });
      heading.replaceChildren(button);
    }
    this.tell();
  }

  press(key) {
    const isName = key === "queue" || key === "state";
    this.isDescending = this.key === key ? !this.isDescending : !isName;
    this.key = key;
    this.tell();
  }

  tell() {
    for (const heading of this.headings) {
      const isIt = heading.dataset.sort === this.key;
      const way = this.isDescending ? "descending" : "ascending";
      setAttribute(heading, "aria-sort", isIt ? way : null);
    }
  }

  /** The items in this order; equal ones stay as they were. */
  apply(items, values) {
    if (this.key === null) return items;
    const value = values[this.key];
    const way = this.isDescending ? -1 : 1;
    const compare = (a, b) => {
      const [left, right] = [value(a), value(b)];
      if (left === right) return 0;
      return (left < right ? -1 : 1) * way;
    };
    return [...items].sort(compare);
  }
}
