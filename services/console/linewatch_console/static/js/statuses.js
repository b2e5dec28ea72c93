// SPDX-License-Identifier: Apache-2.0
// What a work order's states, bands and findings are called, and how they look: a word and a drawing, never colour alone.

import { el, icon, placed } from "./dom.js";
import * as format from "./format.js";
import { now, plant } from "./store.js";

export const STATUSES = {
  awaiting_approval: { word: "Awaiting approval", state: "review", drawing: "review" },
  creating: { word: "Creating", state: "", drawing: "send" },
  held: { word: "Held", state: "", drawing: "pause" },
  created: { word: "In the ERP", state: "ok", drawing: "ok" },
  rejected: { word: "Rejected", state: "", drawing: "none" },
  parked: { word: "Parked: no answer of the ERP", state: "ng", drawing: "clock" },
  refused: { word: "Parked: the ERP refused it", state: "ng", drawing: "none" },
  merged: { word: "Merged", state: "", drawing: "merge" },
  closed: { word: "Closed", state: "done", drawing: "shield" },
};

export const FINDINGS = {
  confirmed: { word: "Confirmed", state: "ok", drawing: "ok", text: "The technician found what the order said." },
  other_fault: { word: "Other fault", state: "review", drawing: "review", text: "Something was wrong, but not this." },
  no_fault: { word: "No fault found", state: "ng", drawing: "ng", text: "Nothing was wrong: a false alarm." },
  unstated: { word: "Not stated", state: "", drawing: "dash", text: "The order is done; nobody said what was found." },
};

const SHORTEST_PLAN_H = 0.1;
export const holdEnds = (order) => format.stamp(order.hold_until);
export const isHeld = (order) => order.status === "creating" && Date.parse(holdEnds(order)) / 1000 > now();
export const expiresAt = (order) => format.stamp(order.approval?.expires_at ?? order.expires_approval_at);
/** The order's status as a person sees it: an order that is held is `creating` to the cloud, and nothing of it is in the ERP. */
export const standOf = (order) => (isHeld(order) ? "held" : order.status === "parked" && order.is_refused ? "refused" : order.status);
export const statusOf = (order) => STATUSES[standOf(order)] ?? { word: format.words(order.status), state: "", drawing: "dash" };

export function chip(order) {
  const known = statusOf(order);
  return el("span", { class: `chip ${known.state}` }, icon(known.drawing), known.word);
}

export function findingChip(finding) {
  const known = FINDINGS[finding];
  return known ? el("span", { class: `chip ${known.state}`, title: known.text }, icon(known.drawing), known.word) : null;
}

/** As the policy's words of severity; what is told in no such word comes last. */
const PRIORITIES = ["urgent", "high", "medium", "low"];
const rank = (order) => { const place = PRIORITIES.indexOf(String(order.priority ?? "").toLowerCase()); return place < 0 ? PRIORITIES.length : place; };

/** Those that wait for a person by priority, the oldest of one first; then the held ones, the next to go on first; then the
 *  others, the newest first. */
export function byUrgency(a, b) {
  const [isA, isB] = [a, b].map((order) => order.status === "awaiting_approval");
  if (isA !== isB) return isA ? -1 : 1;
  const [heldA, heldB] = [a, b].map(isHeld);
  if (heldA !== heldB) return heldA ? -1 : 1;
  if (heldA && holdEnds(a) !== holdEnds(b)) return holdEnds(a) < holdEnds(b) ? -1 : 1;
  if (isA && rank(a) !== rank(b)) return rank(a) - rank(b);
  if (a.created_at === b.created_at) return 0;
  return (a.created_at < b.created_at) === isA ? -1 : 1;
}

/** How urgent it is, while somebody still has to act on it. */
export const priorityChip = (order) => (order.priority && !["rejected", "merged", "closed"].includes(order.status)
  ? el("span", { class: `chip priority ${["ng", "review"][rank(order)] ?? "plain"}`, title: "Priority by the policy; it rises with the risk, never falls" }, rank(order) === 0 ? "Urgent" : `${format.words(String(order.priority).toLowerCase())} priority`) : null);

export const assetOf = (order) => order.asset_name || order.asset_id;
export const ON_EXPIRY = { reject: "rejected", create: "created in the ERP", keep: "kept waiting" };

/** What becomes of a held order by itself: in a pilot the end of its hold asks a person, too. */
export const goesOn = () => (plant.orders?.summary?.pilot ? "A person is asked" : "Placed in the ERP");

/** What the clock will do to this order, as {word, at, why} or null. */
export function pending(order) {
  if (isHeld(order)) return { word: plant.orders?.summary?.pilot ? "Asks a person" : "To the ERP", at: holdEnds(order), why: "held by the policy's quiet hours until then" };
  const expires = expiresAt(order);
  if (order.status === "awaiting_approval" && expires) {
    const then = ON_EXPIRY[order.approval?.on_expiry] ?? "decided by the policy";
    return { word: "Expires", at: expires, why: `then it is ${then}` };
  }
  return null;
}

/** Risk on its bands. */
export function riskBar(risk, bands) {
  const bar = el("div", { class: "risk", role: "img", "aria-label": `Risk ${format.score(risk)}; approval from ${bands.approval}, automatic above ${bands.automatic}` });
  bar.style.setProperty("--approval", `${bands.approval * 100}%`);
  bar.style.setProperty("--automatic", `${bands.automatic * 100}%`);
  if (typeof risk === "number") bar.append(placed(el("i"), { left: risk }));
  return bar;
}

const pictureOf = (order) => (order.evidence ?? []).filter((file) => file.kind === "frame").at(-1);

/** The newest frame, or a drawing where there is none on this device. */
export function thumbnail(order) {
  const missing = () => el("span", { class: "thumb missing" }, icon((order.evidence ?? []).some((file) => file.kind === "window") ? "chart" : "picture"));
  const one = pictureOf(order);
  if (!one?.url) return missing();
  return el("img", { class: "thumb", src: one.url, alt: "", loading: "lazy", width: 76, height: 76, onerror: (event) => event.target.replaceWith(missing()) });
}

/** The same in hours; "" where a cycle is so short that nobody plans by it. */
export function hours(interval) {
  if (!(interval?.p50 >= SHORTEST_PLAN_H)) return "";
  return `about ${format.duration(interval.p50 * 3600)} (${format.duration(interval.p10 * 3600)} to ${format.duration(interval.p90 * 3600)})`;
}
