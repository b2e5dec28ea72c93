// SPDX-License-Identifier: Apache-2.0
// One work order in full, and the question before a decision.

import { el, icon, setText } from "./dom.js";
import * as format from "./format.js";
import { chip, hours, riskBar } from "./orders.js";
import { Viewer } from "./viewer.js";

const MOST_EVIDENCE = 6;

const token = document.querySelector("meta[name=csrf-token]").content;
const detail = document.getElementById("detail");
const decision = document.getElementById("decision");

for (const dialog of [detail, decision]) {
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
}

/** Opens the order's page; the history follows when the cloud has answered. */
export async function openOrder(order, { bands, mayDecide }) {
  const history = el("ol", { class: "history" }, el("li", {}, "Asking the cloud for the history"));
  detail.replaceChildren(...page(order, history, bands, mayDecide));
  detail.showModal();
  try {
    const answer = await fetch(`/api/work-orders/${order.reference}`);
    const content = await answer.json();
    if (!answer.ok) throw new Error(content.error);
    history.replaceChildren(...content.history.map((entry) => el("li", {}, el("b", {}, format.words(entry.what)), entry.by ? ` by ${entry.by}` : "",
      el("span", {}, `${format.timeOf(entry.at, true)}${entry.detail ? ` · ${entry.detail}` : ""}`))));
    if (!content.history.length) history.replaceChildren(el("li", {}, "Nothing is recorded."));
  } catch (error) {
    history.replaceChildren(el("li", {}, `The history can't be shown now: ${error.message}`));
  }
}

function page(order, history, bands, mayDecide) {
  const isWaiting = order.status === "awaiting_approval";
  const choose = (what) => () => { detail.close(); askDecision(order, what); };
  return [
    el("div", { class: "detail-head" },
      el("div", {}, el("h2", { id: "detail-title" }, `${format.failure(order)}: ${order.asset_name || order.asset_id}`),
        el("p", { class: "order-top" }, chip(order.status), order.ai_generated && el("span", { class: "chip" }, "AI-generated"), order.pilot && el("span", { class: "chip review" }, "Pilot"),
          el("span", { class: "mono" }, order.reference))),
      el("button", { class: "button quiet", type: "button", "aria-label": "Close", onclick: () => detail.close() }, icon("close"))),
    el("div", { class: "detail-body" },
      isWaiting && el("div", { class: "dialog-buttons" },
        el("button", { class: "button danger", type: "button", disabled: !mayDecide, onclick: choose("reject") }, "Reject"),
        el("button", { class: "button primary", type: "button", disabled: !mayDecide, onclick: choose("approve") }, "Approve")),
      el("section", {}, el("h3", {}, "Evidence"), evidence(order)),
      el("section", {}, el("h3", {}, "Why"), facts([
        ["Risk", el("div", {}, format.score(order.risk), riskBar(order.risk, bands))],
        ["Severity", format.score(order.severity)],
        ["Time to failure", order.time_to_failure ? `${format.timeToFailure(order.time_to_failure)}${order.time_to_failure.hours ? `, ${hours(order.time_to_failure.hours)}` : ""}` : "not estimated"],
        ["Failure mode", order.failure_type ? `${order.failure_mode}: ${order.failure_type}` : order.failure_mode],
        ["Recommended", order.recommended_action],
        ["Model", order.model ? `${order.model.name} ${order.model.version}` : ""],
        ["Last of them taken", order.observed_at ? format.timeOf(order.observed_at) : "not known: the device's clock was not synchronised"],
        ["Parts that spoke", `${order.event_ids.length}`],
      ])),
      el("section", {}, el("h3", {}, "Asset"), facts([
        ["Asset", `${order.asset_name} (${order.asset_id})`], ["Location", order.location], ["Criticality", order.criticality],
        ["Station", `${order.line} / ${order.station}`], ["Episode", order.episode], ["Order in the ERP", order.erp_id], ["State in the ERP", order.erp_status],
        ["Decided", order.decided_by ? `${order.decided_by}, ${format.timeOf(order.decided_at)}${order.reason ? `: ${order.reason}` : ""}` : ""],
      ])),
      el("section", {}, el("h3", {}, "History"), history)),
  ];
}

function evidence(order) {
  if (!order.evidence.length) return el("p", { class: "muted" }, "The order names no evidence.");
  const shown = order.evidence.filter((one) => one.kind !== "heatmap").slice(-MOST_EVIDENCE);
  return el("div", { class: "pictures" }, ...shown.map((one) => (one.kind === "frame" ? frame(order, one) : window_(one))));
}

/** A frame under its own heat map, which has its name up to the ending. */
function frame(order, one) {
  const stem = one.path.replace(/\.[a-z]+$/, "");
  const heat = order.evidence.find((other) => other.kind === "heatmap" && other.path.startsWith(stem));
  const viewer = new Viewer();
  viewer.show({ event_id: one.path, frame: one.url, heatmap: heat?.url ?? "", regions: [], result: "NG" }, "evidence frame with its heat map");
  return el("figure", {}, viewer.element, el("figcaption", {}, heat ? "Frame with heat map" : "Frame"));
}

function window_(one) {
  return el("figure", {}, el(one.url ? "a" : "span", { class: "thumb missing", href: one.url || null, download: Boolean(one.url), title: one.path }, icon("chart")),
    el("figcaption", {}, "Sensor window (CSV)"));
}

function facts(rows) {
  return el("dl", { class: "facts" }, ...rows.filter(([, value]) => value !== null && value !== "" && value !== undefined)
    .flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}

/** Asks for the reason and takes the decision to the cloud. */
export function askDecision(order, what) {
  const isApproval = what === "approve";
  const reason = el("textarea", { id: "reason", maxlength: "500", required: !isApproval, placeholder: isApproval ? "Optional, such as: seen on the line too" : "Such as: serviced this morning" });
  const problem = el("p", { class: "problem", role: "alert", hidden: true });
  const send = el("button", { type: "submit", class: `button ${isApproval ? "primary" : "danger"}` }, isApproval ? "Approve" : "Reject");
  const form = el("form", { method: "dialog" },
    el("h2", { id: "decision-title" }, isApproval ? "Approve this work order?" : "Reject this work order?"),
    el("p", {}, el("b", {}, order.asset_name || order.asset_id), `: ${order.failure_type || format.words(order.failure_mode)}. `,
      isApproval ? "The ERP gets the order now." : "No order is made for this episode."),
    el("label", { for: "reason" }, isApproval ? "Reason" : "Reason (needed)"), reason, problem,
    el("div", { class: "dialog-buttons" }, el("button", { type: "button", class: "button", onclick: () => decision.close() }, "Cancel"), send));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    problem.hidden = true;
    send.disabled = true;
    const failure = await take(order.reference, what, reason.value);
    send.disabled = false;
    if (!failure) return decision.close();
    setText(problem, failure);
    problem.hidden = false;
  });
  reason.addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit(); });
  decision.replaceChildren(form);
  decision.showModal();
  reason.focus();
}

/** Why it failed; empty when the decision was taken. */
async function take(reference, what, reason) {
  try {
    const answer = await fetch(`/api/work-orders/${reference}/${what}`, {
      method: "POST", headers: { "Content-Type": "application/json", "X-CSRF-Token": token }, body: JSON.stringify({ reason }),
    });
    if (answer.ok) return "";
    const text = (await answer.json()).error;
    return answer.status === 409 ? `It was decided already: ${text}` : text;
  } catch {
    return "The console did not answer. Look at the list before you try again.";
  }
}
