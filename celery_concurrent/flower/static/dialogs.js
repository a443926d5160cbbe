// Asks before something is done, tells how it went, and knows what may be done at all.

import { post, Problem } from "./api.js";
import { byId, el, setAttribute, setText, show } from "./dom.js";

const permission = { granted: true, why: null };

/** Note whether controls may be used, and if not, why; `apply` has the page follow. */
export function permit(granted, why) {
  permission.granted = granted;
  permission.why = why ?? "Controls are off";
  setText(byId("fleet-why"), granted ? "" : permission.why);
  show(byId("fleet-why"), !granted);
  for (const control of document.querySelectorAll("[data-control]")) {
    control.disabled = !permission.granted;
    setAttribute(control, "title", permission.granted ? null : permission.why);
  }
}

/**
 * Ask, and on "yes" have the server do it. True when it was done.
 * `refused(message)` takes an error that belongs somewhere else than into a toast.
 */
export async function perform({ title, text, verb, danger, place, body, refused }) {
  if (!permission.granted || !(await isConfirmed({ title, text, verb, danger }))) return false;
  try {
    toast((await post(place, body)).message, "success");
    return true;
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    if (refused && error.status >= 400 && error.status < 500) refused(error.message);
    else toast(error.message, "danger");
    return false;
  }
}

function isConfirmed({ title, text, verb, danger = false }) {
  const dialog = byId("fleet-confirm");
  const yes = byId("fleet-confirm-yes");
  setText(byId("fleet-confirm-title"), title);
  setText(byId("fleet-confirm-text"), text);
  setText(yes, verb);
  yes.classList.toggle("btn-danger", danger);
  yes.classList.toggle("btn-primary", !danger);
  dialog.returnValue = "no";
  dialog.showModal();
  // What cannot be taken back is not under the Enter key.
  (danger ? byId("fleet-confirm-no") : yes).focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

/** Flower's own kind of message. */
export function toast(message, kind) {
  const isError = kind === "danger";
  const box = el(
    "div",
    {
      class: `toast align-items-center text-bg-${kind} border-0`,
      role: isError ? "alert" : "status",
      "aria-live": isError ? "assertive" : "polite",
      "aria-atomic": "true",
    },
    el(
      "div",
      { class: "d-flex" },
      el("div", { class: "toast-body", text: message }),
      el("button", {
        type: "button",
        class: "btn-close btn-close-white me-2 m-auto",
        "data-bs-dismiss": "toast",
        "aria-label": "Close",
      }),
    ),
  );
  byId("toast-container").append(box);
  box.addEventListener("hidden.bs.toast", () => box.remove());
  window.bootstrap.Toast.getOrCreateInstance(box, { delay: isError ? 10000 : 5000 }).show();
}

// A click beside a dialog closes it, as Esc does.
for (const dialog of document.querySelectorAll(".fleet-dialog")) {
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
}
