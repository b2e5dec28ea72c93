// SPDX-License-Identifier: Apache-2.0
// Questions to the console, and its refusals as one kind of error.

import { endSession, plant } from "./store.js";

/** `status` 0: nobody answered. `order`: what the order is now, where a decision came too late. `outcome`: "not_sent" or
 *  "not_known" where the cloud is away. */
export class Refused extends Error {
  constructor(status, message, order = null, outcome = "") {
    super(message);
    this.status = status;
    this.order = order;
    this.outcome = outcome;
  }
}

export const RETRY_MS = 4000;
/** Whether asking again may help: nobody answered, or the cloud did not. */
export const isPassing = (refused) => [0, 502, 503].includes(refused?.status);

export const get = (path, signal) => ask(path, { signal });

/** A change: with this session's token, which no other site's page has. */
export const post = (path, body) => ask(path, {
  method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json", "X-CSRF-Token": plant.me.csrf },
});

async function ask(path, options) {
  let answer, content;
  try {
    answer = await fetch(path, options);
    content = await answer.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    if (!answer) throw new Refused(0, "The console did not answer.");
    content = {};
  }
  if (answer.ok) return content;
  if (answer.status === 401) endSession();
  throw new Refused(answer.status, content.error ?? `HTTP ${answer.status}`, content.order ?? null, content.outcome ?? "");
}
