// SPDX-License-Identifier: Apache-2.0
// Times twice: how long ago, which goes on by itself, and when, which two people can talk about.

import { el, setText } from "./dom.js";
import * as format from "./format.js";
import { now } from "./store.js";

/** `at` RFC 3339. "12 min ago 14:03", by the console's clock. */
export function when(at, { prefix = "", both = true } = {}) {
  if (!at) return el("span", { class: "muted" }, "–");
  return el("time", { class: "when", datetime: at, title: format.moment(at) },
    el("span", { class: "ago", "data-at": at, "data-prefix": prefix }, `${prefix}${format.relative(at, now())}`),
    both ? [" ", el("span", { class: "clock-time", "data-clock": at }, format.timeOf(at))] : null);
}

/** Called once a second. */
export function tickTimes() {
  const at = now();
  for (const one of document.querySelectorAll("[data-at]")) setText(one, `${one.dataset.prefix}${format.relative(one.dataset.at, at)}`);
  // At midnight what was today is of another day, and says so.
  for (const one of document.querySelectorAll("[data-clock]")) setText(one, format.timeOf(one.dataset.clock));
}
