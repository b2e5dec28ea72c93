// SPDX-License-Identifier: Apache-2.0
// One order in a list: as a card to decide on, or as a row.

import { decisionButtons } from "./decisions.js";
import { el, renew } from "./dom.js";
import * as format from "./format.js";
import { assetOf, chip, findingChip, hours, isHeld, pending, priorityChip, riskBar, thumbnail } from "./statuses.js";
import { bands, plant, whyNotDecide } from "./store.js";
import { when } from "./times.js";

/** What makes a list's entry look another way; everything else of the order leaves it alone. */
const looks = (order) => [order, isHeld(order), pending(order), bands(), whyNotDecide(), plant.me.role];

const waits = (order) => {
  const what = pending(order);
  return what && el("p", { class: "pending", title: `${what.word} ${format.moment(what.at)}; ${what.why}` }, when(what.at, { prefix: `${what.word} ` }));
};

/** On the board: with its facts while it waits for a person, with its buttons while one can decide. */
export function card(order) {
  const element = el("li", { class: "order", "data-reference": order.reference });
  return { element, update: (one) => renew(element, looks(one), () => {
    const isWaiting = one.status === "awaiting_approval";
    element.classList.toggle("compact", !isWaiting);
    return [
      thumbnail(one),
      el("div", { class: "order-main" },
        el("div", { class: "order-top" }, chip(one), isWaiting && priorityChip(one), findingChip(one.finding), one.erp_id ? el("span", { class: "mono erp" }, one.erp_id) : when(one.created_at, { both: false })),
        el("h3", { title: one.failure_type || one.failure_mode }, el("a", { href: `#/orders/${one.reference}`, tabindex: "-1" }, format.failure(one))),
        el("p", { class: "asset", title: `${assetOf(one)} · ${one.asset_id} · ${one.failure_mode}` }, `${assetOf(one)} · ${one.asset_id}`)),
      isWaiting && el("dl", { class: "order-facts" },
        el("div", {}, el("dt", {}, "Risk"), el("dd", {}, format.score(one.risk), riskBar(one.risk, bands()))),
        el("div", {}, el("dt", {}, "Time to failure"), el("dd", {}, one.time_to_failure ? format.timeToFailure(one.time_to_failure) : "not estimated"),
          hours(one.time_to_failure?.hours) && el("dd", { class: "muted" }, hours(one.time_to_failure.hours)))),
      isWaiting && el("p", { class: "order-action" }, one.recommended_action),
      waits(one),
      (isWaiting || isHeld(one)) && el("div", { class: "order-buttons" }, decisionButtons(one, { only: ["approve", "reject"], keys: true })),
    ];
  }) };
}

const byWhom = (order) => {
  const by = (order.status === "closed" && order.closed_by) || order.decided_by;
  return by && el("span", { class: "muted ellipsis", title: by }, `by ${by}`);
};

/** In the queue: one line of facts, wide. */
export function row(order) {
  const element = el("li", { class: "row", "data-reference": order.reference });
  return { element, update: (one) => renew(element, looks(one), () => [
    thumbnail(one),
    el("div", { class: "row-what" },
      el("h2", { title: one.failure_type || one.failure_mode }, el("a", { href: `#/orders/${one.reference}`, tabindex: "-1" }, format.failure(one))),
      el("p", { class: "asset", title: `${assetOf(one)} · ${one.asset_id} · ${one.location ?? ""}` }, [assetOf(one), one.asset_id, one.location].filter(Boolean).join(" · "))),
    el("div", { class: "row-state" }, chip(one), priorityChip(one), findingChip(one.finding), one.pilot && el("span", { class: "chip" }, "Pilot")),
    el("div", { class: "row-risk" }, el("span", {}, el("b", {}, format.score(one.risk)), el("span", { class: "muted" }, " risk")), riskBar(one.risk, bands())),
    el("div", { class: "row-end" }, one.time_to_failure ? [el("b", {}, format.timeToFailure(one.time_to_failure)), el("span", { class: "muted" }, "to failure")] : el("span", { class: "muted" }, "life not estimated")),
    el("div", { class: "row-when" }, when(one.created_at), waits(one) || (one.erp_id && el("span", { class: "mono" }, one.erp_id)) || byWhom(one)),
  ]) };
}
