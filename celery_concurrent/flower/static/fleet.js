// The Fleet page: which view the address asks for, and its data once a second.

import { address, get, Problem } from "./api.js";
import { Detail } from "./detail.js";
import { permit } from "./dialogs.js";
import { byId, setAttribute, setText, show } from "./dom.js";
import { NodeView } from "./node.js";
import { Overview } from "./overview.js";

const EVERY = 1000;
// The node itself is asked then.
const NODE_EVERY = 2000;
const HIDDEN_EVERY = 10000;
// So many fleets make a long answer: it is asked for less often.
const MANY = 25;
const MANY_EVERY = 3;
const LONGEST_PAUSE = 10000;

const spans = [...document.querySelectorAll("[name=fleet-span]")];
let view = readView();
let timer;
let giving = new AbortController();
let failures = 0;
let looks = 0;
let known = null;
// The heading that a followed link leads to, until it is there.
let arriving = null;

function readView() {
  const asked = new URLSearchParams(location.search);
  const seconds = asked.get("seconds") === "3600" ? 3600 : 300;
  return { queue: asked.get("queue"), node: asked.get("node"), seconds };
}

/** The address of a view, as the link to it. */
function linkTo({ queue, node, seconds = view.seconds }) {
  const asked = new URLSearchParams();
  if (queue) asked.set("queue", queue);
  if (node) asked.set("node", node);
  if (seconds !== 300) asked.set("seconds", seconds);
  return `?${asked}`;
}

const overview = new Overview((queue) => linkTo({ queue }));
const detail = new Detail((node) => linkTo({ queue: view.queue, node }), look);
const nodeView = new NodeView(look);

async function showFleets(signal) {
  // One after the other only where the first tells which the second is.
  if (view.queue === null) {
    known = await get(address`/fleet/data`, signal);
    view.queue = known.fleets[0]?.queue ?? null;
  }
  const isDue = known === null || known.fleets.length <= MANY || looks % MANY_EVERY === 0;
  const [all, one] = await Promise.all([
    isDue ? get(address`/fleet/data`, signal) : known,
    view.queue === null ? null : fleetOf(view.queue, signal),
  ]);
  known = all;
  permit(all.controls, all.why_no_controls);
  overview.update(all, view.queue);
  show(byId("fleet-detail"), one !== null);
  tellMissing(view.queue !== null && one === null, `No fleet "${view.queue}" is known now.`);
  if (one === null) return;
  detail.update(one, view.seconds);
  permit(one.controls, one.why_no_controls);
}

async function fleetOf(queue, signal) {
  detail.choose(queue);
  const { page, size, state, search } = detail.nodes.query();
  const asked = address`/fleet/data/fleet/${queue}?seconds=${view.seconds}&page=${page}&size=${size}&state=${state}&search=${search}`;
  return unlessMissing(get(asked, signal));
}

async function showNode(signal) {
  const told = await unlessMissing(get(address`/fleet/data/node/${view.node}`, signal));
  show(byId("node-detail"), told !== null);
  tellMissing(told === null, `No node "${view.node}" is known now: it has left.`);
  if (told === null) return;
  nodeView.update(told);
  permit(told.controls, told.why_no_controls);
}

async function unlessMissing(answer) {
  try {
    return await answer;
  } catch (error) {
    if (error instanceof Problem && error.status === 404) return null;
    throw error;
  }
}

function tellMissing(isMissing, text) {
  setText(byId("fleet-missing"), isMissing ? text : "");
  show(byId("fleet-missing"), isMissing);
}

async function look() {
  clearTimeout(timer);
  giving.abort();
  giving = new AbortController();
  const { signal } = giving;
  try {
    await (view.node === null ? showFleets(signal) : showNode(signal));
    looks += 1;
    failures = 0;
    tellConnection(true, "Live");
    tellTitle();
    arrive();
  } catch (error) {
    if (signal.aborted) return;
    failures += 1;
    const isOurs = error instanceof Problem;
    if (!isOurs) console.error(error);
    const lost = isOurs && error.status === 0 ? "Connection lost" : error.message;
    tellConnection(false, `${lost}, trying again`);
  }
  if (!signal.aborted) timer = setTimeout(look, pause());
}

function pause() {
  const shown = view.node === null ? EVERY : NODE_EVERY;
  const usual = document.hidden ? HIDDEN_EVERY : shown;
  return failures ? Math.min(LONGEST_PAUSE, usual * 2 ** (failures - 1)) : usual;
}

function tellConnection(isLive, text) {
  setText(byId("fleet-connection"), text);
  const dot = byId("fleet-connection-dot");
  dot.classList.toggle("status-dot-live", isLive);
  dot.classList.toggle("status-dot-error", !isLive);
  byId("fleet-page").classList.toggle("fleet-stale", !isLive);
}

function tellTitle() {
  document.title = [view.node, view.queue, "Fleet", "Flower"].filter(Boolean).join(" · ");
}

function arrive() {
  const heading = arriving === null ? null : byId(arriving);
  arriving = null;
  heading?.focus({ preventScroll: true });
  heading?.scrollIntoView({ block: "start" });
}

/** Have the page follow the address; what a view keeps of its own stays. */
function follow() {
  view = readView();
  const isNode = view.node !== null;
  show(byId("fleet-all"), !isNode);
  if (isNode) show(byId("fleet-detail"), false);
  show(byId("node-detail"), false);
  show(byId("fleet-crumbs"), isNode);
  tellMissing(false);
  setText(byId("crumb-queue"), view.queue ?? "first fleet");
  setAttribute(byId("crumb-queue"), "href", linkTo({ queue: view.queue }));
  setText(byId("crumb-node"), view.node ?? "");
  for (const span of spans) span.checked = Number(span.value) === view.seconds;
  return look();
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-link]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  event.preventDefault();
  history.pushState(null, "", link.getAttribute("href"));
  arriving = new URLSearchParams(location.search).has("node") ? "node-name" : "fleet-name";
  follow();
});
for (const span of spans) {
  span.addEventListener("change", () => {
    history.replaceState(null, "", linkTo({ ...view, seconds: Number(span.value) }));
    follow();
  });
}
window.addEventListener("popstate", () => {
  // What is open there asks of a view that is left.
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  follow();
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) look();
});
follow();
