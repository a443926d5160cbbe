// What a person would see go wrong on the page, as sentences: texts on top of each other, out of
// the screen, cut off, or too dim. The test runs it in the page; it is given nothing.
() => {
  const found = [];
  const say = (what, ...nodes) => found.push(`${what}: ${nodes.map(name).join(" / ")}`);
  const name = ({ element, text }) => {
    const id = element.closest("[id]")?.id ?? "";
    return `${element.tagName.toLowerCase()} in #${id} "${text.slice(0, 40)}"`;
  };

  // The part of a box that its scrolling ancestors show.
  const seen = (element, box) => {
    let { left, right, top, bottom } = box;
    for (let up = element.parentElement; up; up = up.parentElement) {
      if (!["auto", "scroll", "hidden"].includes(getComputedStyle(up).overflowX)) continue;
      const around = up.getBoundingClientRect();
      [left, right] = [Math.max(left, around.left), Math.min(right, around.right)];
      [top, bottom] = [Math.max(top, around.top), Math.min(bottom, around.bottom)];
    }
    return right - left > 1 && bottom - top > 1 ? { left, right, top, bottom } : null;
  };

  const leaves = [];
  const add = (element, text, box) => {
    if (element.closest("[hidden], .visually-hidden, dialog:not([open]), noscript, option")) return;
    if (!element.checkVisibility()) return;
    const part = seen(element, box);
    if (part) leaves.push({ element, text, ...part, isText: text !== "" });
  };
  const root = document.querySelector("#fleet-page");
  const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode;
    if (!node.data.trim()) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    for (const box of range.getClientRects()) add(node.parentElement, node.data.trim(), box);
  }
  for (const element of root.querySelectorAll("input:not([type=radio]), select, .fleet-bar, .chart-swatch")) {
    add(element, "", element.getBoundingClientRect());
  }

  for (let i = 0; i < leaves.length; i += 1) {
    for (let j = i + 1; j < leaves.length; j += 1) {
      const [a, b] = [leaves[i], leaves[j]];
      if (a.element === b.element) continue;
      const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      // Two pixels: lines of text are a little higher than their letters.
      if (wide > 2 && high > 4) say("overlap", a, b);
    }
  }

  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth > width) found.push("the page scrolls sideways");
  for (const leaf of leaves) {
    if (leaf.right > width + 1 || leaf.left < -1) say("out of the screen", leaf);
  }

  const parse = (text) => {
    const parts = text.match(/[\d.]+/g).map(Number);
    const share = text.startsWith("color(") ? 255 : 1;
    return [...parts.slice(0, 3).map((part) => part * share), parts[3] ?? 1];
  };
  const over = (above, below) =>
    [0, 1, 2].map((i) => above[i] * above[3] + below[i] * (1 - above[3]));
  const background = (element) => {
    const layers = [];
    for (let up = element; up; up = up.parentElement) {
      const color = parse(getComputedStyle(up).backgroundColor);
      layers.push(color);
      if (color[3] === 1) break;
    }
    return layers.reverse().reduce((below, above) => over(above, below), [255, 255, 255]);
  };
  const light = (color) => {
    const [r, g, b] = color.map((part) => {
      const share = part / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  for (const leaf of leaves.filter((each) => each.isText)) {
    const { element } = leaf;
    if (element.closest(":disabled, .disabled")) continue;
    const style = getComputedStyle(element);
    const behind = background(element);
    const ink = parse(element instanceof SVGElement ? style.fill : style.color);
    const [a, b] = [light(over(ink, behind)), light(behind)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    const size = parseFloat(style.fontSize);
    const isLarge = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    if (ratio < (isLarge ? 3 : 4.5)) say(`contrast ${ratio.toFixed(2)}`, leaf);
  }
  return found;
}
