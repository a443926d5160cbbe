// Builds and updates the page. Data goes in as text and as attributes, never as markup.

const SVG = "http://www.w3.org/2000/svg";

/** The element of the page with this id. */
export const byId = (id) => document.getElementById(id);

/** A new element; `text` sets its text, `on` its listeners, all else its attributes. */
export function el(name, { text, on = {}, ...attributes } = {}, ...children) {
  return finish(document.createElement(name), text, on, attributes, children);
}

/** The same for a drawing's elements. */
export function svg(name, { text, on = {}, ...attributes } = {}, ...children) {
  return finish(document.createElementNS(SVG, name), text, on, attributes, children);
}

function finish(node, text, on, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null) node.setAttribute(name, value);
  }
  for (const [name, listener] of Object.entries(on)) node.addEventListener(name, listener);
  if (text !== undefined) node.textContent = text;
  node.append(...children);
  return node;
}

/** Set a node's text. One that has it already is left alone, so that a selection in it stays. */
export function setText(node, text) {
  const said = String(text);
  if (node.textContent !== said) node.textContent = said;
}

/** Set an attribute, or take it away for null, unless it is so already. */
export function setAttribute(node, name, value) {
  if (value === null || value === undefined) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
  } else if (node.getAttribute(name) !== String(value)) {
    node.setAttribute(name, value);
  }
}

export function show(node, visible) {
  if (node.hidden === visible) node.hidden = !visible;
}

/**
 * The children of `parent`, one for each item of a list, kept by key: what stays is updated where
 * it is, so that focus, selection and typed text in it live on.
 */
export class Keyed {
  /** `make(key)` returns an element and an `update(item)` that fills it. */
  constructor(parent, make) {
    this.parent = parent;
    this.make = make;
    this.rows = new Map();
  }

  sync(items, keyOf) {
    const wanted = new Set(items.map(keyOf));
    for (const [key, row] of this.rows) {
      if (!wanted.has(key)) {
        row.element.remove();
        this.rows.delete(key);
      }
    }
    const focused = document.activeElement;
    let next = this.parent.firstElementChild;
    for (const item of items) {
      const key = keyOf(item);
      if (!this.rows.has(key)) this.rows.set(key, this.make(key));
      const row = this.rows.get(key);
      row.update(item);
      if (row.element === next) next = next.nextElementSibling;
      else this.parent.insertBefore(row.element, next);
    }
    // An element that is moved loses the focus.
    if (focused !== document.activeElement && this.parent.contains(focused)) {
      focused.focus({ preventScroll: true });
    }
  }
}

/** A bar: how much of `most` is used, and a mark at what is aimed at. */
export class Bar {
  constructor(kind = "") {
    this.fill = el("span", { class: "fleet-bar-fill" });
    this.mark = el("span", { class: "fleet-bar-mark" });
    this.track = el("span", { class: `fleet-bar ${kind}`, role: "img" }, this.fill, this.mark);
    this.label = el("span", { class: "fleet-bar-label" });
    this.element = el("span", { class: "fleet-measure" }, this.track, this.label);
  }

  /** `label` is shown, `told` is for who cannot see the bar. */
  set({ value, most, mark = null, label, told }) {
    show(this.track, most > 0 && value !== null);
    setText(this.label, label);
    if (this.track.hidden) return;
    const percent = (part) => `${Math.min(100, (100 * part) / most).toFixed(1)}%`;
    this.fill.style.inlineSize = percent(value);
    show(this.mark, mark !== null && mark < most);
    if (!this.mark.hidden) this.mark.style.insetInlineStart = percent(mark);
    this.track.classList.toggle("fleet-bar-over", mark !== null && value > mark);
    setAttribute(this.track, "aria-label", told ?? label);
  }
}

/** A state in one word, with a dot of its colour and shape. */
export function setState(node, state, title = null) {
  node.classList.add("fleet-state");
  setAttribute(node, "data-state", state);
  setAttribute(node, "title", title);
  setText(node, state);
}
