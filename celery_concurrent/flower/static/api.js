// The server's answers. Whatever goes wrong is thrown as a Problem.

import { byId } from "./dom.js";

// An answer that takes longer never comes: a connection may be dead that nobody has closed. A node
// takes two seconds.
const LONGEST = 10000;

/** What went wrong; `status` is HTTP's, 0 when nobody answered. */
export class Problem extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** The part of Flower's addresses that --url-prefix adds. */
export function prefix() {
  const told = byId("url_prefix").value.replace(/^\/+|\/+$/g, "");
  return told ? `/${told}` : "";
}

/** An address below the prefix; names in it may hold anything, "/" too. */
export const address = (fixed, ...names) =>
  prefix() + String.raw({ raw: fixed }, ...names.map(encoded));

// Half of a surrogate pair is in no address.
const encoded = (name) => encodeURIComponent(String(name).toWellFormed());

/** The data at this address; `signal` gives it up. */
export async function get(place, signal) {
  const tooLong = AbortSignal.timeout(LONGEST);
  return read(await ask(place, { signal: AbortSignal.any([signal, tooLong]) }));
}

/** Have the server do something; what it says of it. */
export async function post(place, body = {}) {
  const token = document.cookie.match(/(?:^|;\s*)_xsrf=([^;]+)/);
  return read(
    await ask(place, {
      method: "POST",
      headers: {
        "Content-Type": "application/json",
        "X-XSRFToken": token ? decodeURIComponent(token[1]) : "",
      },
      body: JSON.stringify(body),
    }),
  );
}

async function ask(place, options) {
  try {
    return await fetch(place, { credentials: "same-origin", cache: "no-store", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw noAnswer();
  }
}

const noAnswer = () => new Problem("Flower does not answer", 0);

async function read(answer) {
  // Who is not logged in any more is led to a page.
  if (answer.status === 401 || answer.redirected) {
    throw new Problem("You are not logged in any more: load the page again", 401);
  }
  let body;
  try {
    body = await answer.json();
  } catch (error) {
    if (error.name === "TimeoutError") throw noAnswer();
    throw new Problem(`Flower answered with status ${answer.status}`, answer.status || 500);
  }
  if (!answer.ok) {
    const said = typeof body?.error === "string" ? body.error : `status ${answer.status}`;
    throw new Problem(said, answer.status);
  }
  return body;
}
