// SPDX-License-Identifier: Apache-2.0
// Why the policy raised it: the risk against the bands, the last places one by one, and how long is left.

import { el, icon, placed, svg } from "./dom.js";
import * as format from "./format.js";
import { timeToFailureBar } from "./tile.js";
import { hours, riskBar } from "./statuses.js";

const MOST_LABELS = 8;
/** Whether the threshold itself counts; orders of before do not say it, and asked from theirs on, as the policy did. */
const reach = (band, inclusive) => (inclusive ?? band === "approval" ? "from" : "above");
/** In the pilot the automatic band asks as well. */
const bandWord = (order) => ({ automatic: order.pilot ? "asks a person, as all do in the pilot" : "creates an order", approval: "asks a person" }[order.band] ?? order.band ?? "");

/** The risk as a number on its bands, with the thresholds that held. */
export function riskPanel(order, bands) {
  const held = order.thresholds ?? {};
  const on = (band) => held[band]?.on ?? bands[band];
  return el("div", { class: "risk-panel" },
    el("div", { class: "risk-number" }, el("b", {}, format.score(order.risk)), el("span", {}, "risk, ", el("b", {}, bandWord(order)))),
    el("div", { class: "risk-scale" }, riskBar(order.risk, { approval: on("approval"), automatic: on("automatic") }),
      el("div", { class: "scale" }, el("span", { class: "first" }, "0 recorded"), placed(el("span", {}, `${format.score(on("approval"))} asks`), { left: on("approval") }), placed(el("span", {}, `${format.score(on("automatic"))} ${order.pilot ? "asks too" : "creates"}`), { left: on("automatic") }), el("span", { class: "last" }, "1"))),
    Object.keys(held).length > 0 && el("p", { class: "muted" }, Object.entries(held).map(([band, { on: from, off, inclusive }]) => `${format.words(band)}: on ${reach(band, inclusive)} ${format.score(from)}, off below ${format.score(off)}`).join(" · ")));
}

/** Places and evidence are those of the moment in which it was raised; risk and recommendation are those of the last escalation. */
export const gotWorse = (order) => Array.isArray(order.escalations) && order.escalations.length > 0;

/** One bar for each place, the risk line over them, and the threshold that counts. */
export function persistencePanel(order, isLoading) {
  const places = order.persistence ?? [];
  const title = el("h3", {}, "Persistence");
  if (!places.length) return isLoading ? [title, el("div", { class: "persistence blank-box" })] : [];
  const threshold = thresholdOf(order);
  const over = places.filter((place) => place.over).length;
  const every = Math.ceil(places.length / MOST_LABELS);
  const width = 100 / places.length;
  const y = (risk) => 100 - 92 * Math.max(0, Math.min(1, risk ?? 0));
  const known = places.map((place, index) => [place, index]).filter(([place]) => typeof place.risk === "number");
  const line = known.map(([place, index]) => `${(width * (index + 0.5)).toFixed(2)},${y(place.risk).toFixed(2)}`).join(" ");
  const words = `${over} of the last ${places.length} parts were over ${typeof threshold === "number" ? format.score(threshold) : "the threshold"}${gotWorse(order) ? " when it was raised" : ""}`;
  return [el("div", { class: "panel-head" }, title, el("span", { class: "muted" }, words)),
    el("div", { class: "persistence", role: "img", "aria-label": `${words}. Risks: ${places.map((place) => format.score(place.risk)).join(", ")}` },
      svg("svg", { viewBox: "0 0 100 100", preserveAspectRatio: "none", "aria-hidden": "true" },
        ...known.map(([place, index]) => svg("rect", { class: place.over ? "over" : "under", x: width * (index + 0.14), width: width * 0.72, y: y(place.risk), height: 100 - y(place.risk) }, svg("title", {}, `Part ${place.sequence}: risk ${format.score(place.risk)}${place.over ? ", over" : ""}`))),
        typeof threshold === "number" && svg("line", { class: "threshold", x1: 0, x2: 100, y1: y(threshold), y2: y(threshold) }),
        svg("polyline", { points: line })),
      typeof threshold === "number" && thresholdLabel(threshold, y),
      el("div", { class: "places", "aria-hidden": "true" }, ...places.map((place, index) => el("span", { class: place.over ? "over" : "" }, (places.length - 1 - index) % every === 0 && [every === 1 && icon(place.over ? "review" : typeof place.risk === "number" ? "ok" : "none"), el("b", {}, format.score(place.risk))]))))];
}

/** The threshold that raised it: an order that got worse since has a higher band than its places. */
function thresholdOf(order) {
  const raised = order.thresholds?.[order.raised_in]?.on;
  if (typeof raised === "number") return raised;
  // An order of before does not say it: the highest that all places marked as over reach.
  const ons = Object.values(order.thresholds ?? {}).map((band) => band.on).filter((on) => typeof on === "number").sort((a, b) => b - a);
  const least = Math.min(...order.persistence.filter((place) => place.over).map((place) => place.risk));
  return ons.find((on) => on <= least) ?? ons.at(-1);
}

function thresholdLabel(threshold, y) {
  const label = el("span", { class: "threshold-label", "aria-hidden": "true" }, format.score(threshold));
  label.style.setProperty("--share", String(y(threshold) / 100));
  return label;
}

export function timeToFailurePanel(interval) {
  const title = el("h3", {}, "Time to failure");
  if (!interval) return [title, el("p", { class: "muted" }, "Not estimated: this model tells what is wrong, not how long it lasts.")];
  const spread = interval.hours;
  return [el("div", { class: "panel-head" }, title, hours(spread) && el("span", { class: "muted" }, hours(spread))), el("div", { class: "ttf" }, ...timeToFailureBar(interval))];
}
