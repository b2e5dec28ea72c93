// SPDX-License-Identifier: Apache-2.0
// The question before a decision: what will happen, asked once; then what became of it.

import { post } from "./api.js";
import { openDialog } from "./dialog.js";
import { el, icon, setText } from "./dom.js";
import * as format from "./format.js";
import { FINDINGS, assetOf, chip, goesOn, holdEnds, standOf } from "./statuses.js";
import { decides, orders, plant, tellDecided, whyNotDecide } from "./store.js";
import { when } from "./times.js";

const LONGEST_REASON = 500;
const REASONS = ["Serviced already", "Known, repair is planned", "False alarm", "Asset is out of use"];
const OPEN = ["awaiting_approval", "creating", "created", "parked"];

const DECISIONS = {
  approve: { title: "Approve this work order?", button: "Approve", style: "primary", done: "Approved", needsReason: false,
    statuses: ["awaiting_approval", "held"], placeholder: "Optional, such as: seen on the line too",
    effect: (order) => `Creates a work order in ${erpName()} for ${assetOf(order)} now, once${standOf(order) === "held" ? ", and waits for the end of the quiet hours no longer" : ""}. It can't be taken back from here.` },
  reject: { title: "Reject this work order?", button: "Reject", style: "danger", done: "Rejected", needsReason: true,
    statuses: ["awaiting_approval", "held"], placeholder: "Such as: serviced this morning", reasons: REASONS,
    effect: (order) => `Nothing is created in the ERP. The same failure ${standOf(order) === "held" ? "raises an order again" : "is asked about again"} after it went away and came back${order.band === "automatic" ? "" : "; if it gets worse, into a stronger band, that speaks up at once"}.` },
  merge: { title: "Merge into another order?", button: "Merge", style: "primary", done: "Merged", needsReason: true,
    statuses: ["awaiting_approval"], placeholder: "Such as: the same repair",
    effect: () => "No order of its own is created; the other order gets a note, and closing it closes this one too." },
  replay: { title: "Have it tried again?", button: "Try again", style: "primary", done: "To be tried again", needsReason: false,
    statuses: ["parked", "refused"], placeholder: "Such as: the asset is known to the ERP now",
    effect: () => `The cloud's next sweep looks for the order in ${erpName()} and creates it where it is not there: once, however often this is asked.` },
  close: { title: "Close with the finding", button: "Close the order", style: "primary", done: "Closed", needsReason: false,
    statuses: ["created", "parked", "refused", "closed"], placeholder: "Optional, such as: bearing replaced, shaft was dry",
    effect: (order) => order.status === "closed" ? "Corrects what was recorded; the earlier finding stays in the records."
      : `The episode ends. What was found counts into the accuracy of the model that raised it.${order.erp_id ? ` The ERP's own order ${order.erp_id} is not ended from here: end it there.` : ""}` },
};

/** The key of each decision on an order. */
export const KEYS = { approve: "a", reject: "r", merge: "m", replay: "t", close: "c" };

const erpName = () => plant.orders?.summary?.erp_name || "the ERP";

/** Whether this person could take it at all: role and the order's state; the cloud being away is told at the button. */
export const isPossible = (order, what) => decides() && DECISIONS[what].statuses.includes(standOf(order));

export const buttonWord = (order, what) => (what === "close" && order.status === "closed" ? "Correct the finding" : { approve: "Approve", reject: "Reject", merge: "Merge", replay: "Try again", close: "Close" }[what]);

/** The buttons of an order; none for who may not decide. */
export function decisionButtons(order, { only = Object.keys(DECISIONS), keys = false } = {}) {
  return only.filter((what) => isPossible(order, what)).map((what) => el("button", {
    type: "button", class: `button ${{ approve: "primary", reject: "danger" }[what] ?? ""}`, "data-what": what,
    disabled: Boolean(whyNotDecide()), title: whyNotDecide() ? `Not now: ${whyNotDecide()}` : null,
    onclick: () => decide(order, what),
  }, buttonWord(order, what), keys && el("kbd", { "aria-hidden": "true" }, KEYS[what])));
}

/** Asks, and takes the decision to the cloud. Does nothing where it is not possible. */
export function decide(order, what) {
  if (!isPossible(order, what) || whyNotDecide()) return;
  const kind = DECISIONS[what];
  const stand = standOf(order); // a hold may end while somebody writes a reason
  const reason = el("textarea", { id: "reason", maxlength: LONGEST_REASON, required: kind.needsReason, placeholder: kind.placeholder, rows: 3 });
  const problem = el("div", { class: "problem", role: "alert" });
  const send = el("button", { type: "submit", class: `button ${kind.style}` }, kind.button);
  const choices = what === "merge" ? targets(order) : what === "close" ? findings(order) : null;
  send.disabled = what === "merge" && !choices;
  const form = el("form", { method: "dialog", class: "decision" },
    el("p", { class: "decision-order" }, chip(order), el("b", {}, `${format.failure(order)}: ${assetOf(order)}`),
      typeof order.risk === "number" && el("span", { class: "muted" }, `risk ${format.score(order.risk)}`)),
    el("p", { class: `effect ${what}` }, icon({ approve: "send", reject: "none", merge: "merge", replay: "send", close: "wrench" }[what]), el("span", {}, kind.effect(order))),
    stand === "held" && el("p", { class: "muted" }, "Nobody has to decide: ", when(holdEnds(order), { prefix: `${goesOn().toLowerCase().replace("erp", "ERP")} by itself ` }), "."),
    what === "merge" && !choices ? el("p", { class: "notice warn" }, icon("review"), el("span", {}, "There is no other open order of this asset or this line to merge into.")) : choices,
    el("div", { class: "field" }, el("label", { for: "reason" }, what === "close" ? "Note" : kind.needsReason ? "Reason (needed, it is recorded)" : "Reason"),
      kind.reasons && el("div", { class: "reasons" }, ...kind.reasons.map((text) => el("button", { type: "button", class: "button quiet", onclick: () => { reason.value = text; reason.focus(); } }, text))),
      reason),
    problem,
    el("div", { class: "dialog-buttons" }, el("span", { class: "muted as" }, `As ${plant.me.name}`),
      el("button", { type: "button", class: "button", onclick: () => close() }, "Cancel"), send));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (send.disabled) return;
    problem.replaceChildren();
    send.disabled = true;
    setText(send, "Sending …");
    try {
      await post(`/api/work-orders/${order.reference}/${what}`, body(what, form, reason.value.trim()));
      close();
      tellDecided(order.reference);
      announce(`${kind.done}: ${format.failure(order)}, ${assetOf(order)}`);
    } catch (refused) {
      setText(send, kind.button);
      // Off only where it can't be taken any more; what was refused for another reason may be tried again.
      send.disabled = refused.status === 409 && !kind.statuses.includes(refused.order ? standOf(refused.order) : stand);
      problem.replaceChildren(icon("review"), told(refused, order, stand, () => close()));
      if (refused.status === 409) tellDecided(order.reference);
    }
  });
  form.addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit(); });
  const close = openDialog(kind.title, [form]);
  (form.querySelector("input[type=radio]") ?? reason).focus();
}

function body(what, form, text) {
  const chosen = new FormData(form);
  if (what === "merge") return { into: chosen.get("into"), reason: text };
  if (what === "close") return { finding: chosen.get("finding"), note: text, found_failure: chosen.get("found_failure") ?? "" };
  return { reason: text };
}

/** What the refusal means: the cloud's own words; where the order has moved on, what it is now and who did that. */
function told(refused, order, stand, close) {
  const present = refused.order;
  const said = refused.message.charAt(0).toUpperCase() + refused.message.slice(1);
  if (refused.status === 409 && present && standOf(present) !== stand) return el("div", {}, el("p", {}, ...moved(stand, present)),
    el("p", { class: "decision-order" }, "It is now ", chip(present), present.erp_id && el("span", { class: "mono" }, present.erp_id)), el("p", { class: "muted" }, said),
    el("a", { class: "button", href: `#/orders/${order.reference}`, onclick: close }, "Show the order"));
  if (refused.status === 409) return el("p", {}, said);
  const hint = { 0: " Look at the order before you try again: the decision may have been taken.", 401: " Sign in again; nothing was decided.", 403: " Nothing was decided.",
    503: refused.outcome === "not_known" ? "" : " Nothing was decided, and nothing is kept for later: try again when the cloud is back." }[refused.status] ?? "";
  return el("p", {}, refused.message, hint);
}

/** Who moved it on; an order may also go on by itself, as a parked one that reached the ERP, or one whose hold has ended. */
function moved(stand, present) {
  const [by, at, why] = present.status === "closed" ? [present.closed_by, present.closed_at, present.note] : [present.decided_by, present.decided_at, present.reason];
  const wentBySelf = stand === "held" ? !by : stand !== "awaiting_approval";
  if (present.status !== "closed" && wentBySelf) return [el("b", {}, "The order went on meanwhile"), "."];
  return [el("b", {}, `${by || "Somebody"} decided meanwhile`), at ? ` at ${format.timeOf(at, true)}.` : ".", why ? ` "${why}"` : ""];
}

/** Open orders of the same asset, then of the same line: the cloud takes no other. */
function targets(order) {
  const isOfLine = (one) => one.site === order.site && one.line === order.line;
  const open = orders().filter((one) => one.reference !== order.reference && OPEN.includes(one.status));
  const near = [...open.filter((one) => one.asset_id === order.asset_id), ...open.filter((one) => one.asset_id !== order.asset_id && isOfLine(one))].slice(0, 20);
  if (!near.length) return null;
  return el("fieldset", { class: "choices" }, el("legend", {}, "Into which order"), ...near.map((one, index) => el("label", { class: "choice" },
    el("input", { type: "radio", name: "into", value: one.reference, required: true, checked: index === 0 && one.asset_id === order.asset_id }),
    el("span", {}, el("b", {}, `${format.failure(one)}: ${assetOf(one)}`), el("span", { class: "muted" }, [one.erp_id, one.asset_id === order.asset_id ? "same asset" : `same line, ${one.asset_id}`].filter(Boolean).join(" · "))), chip(one))));
}

function findings(order) {
  const other = el("input", { type: "text", name: "found_failure", maxlength: 80, placeholder: "Failure mode found, such as bearing-wear", "aria-label": "Failure mode found", hidden: order.finding !== "other_fault", value: order.found_failure || null });
  return el("fieldset", { class: "choices", onchange: (event) => { if (event.target.name === "finding") other.hidden = event.target.value !== "other_fault"; } },
    el("legend", {}, "What did the technician find?"), ...Object.entries(FINDINGS).map(([name, one]) => el("label", { class: "choice" },
      el("input", { type: "radio", name: "finding", value: name, required: true, checked: order.finding === name }), icon(one.drawing),
      el("span", {}, el("b", {}, one.word), el("span", { class: "muted" }, one.text)))), other);
}

/** Says it once to who can't see it. */
export function announce(text) {
  setText(document.getElementById("announce"), text);
}
