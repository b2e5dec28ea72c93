// SPDX-License-Identifier: Apache-2.0
// One work order with all that a person needs to decide on it.

import { RETRY_MS, get, isPassing } from "../api.js";
import { decisionButtons } from "../decisions.js";
import { el, facts, icon, renew } from "../dom.js";
import { evidencePanel } from "../evidence.js";
import * as format from "../format.js";
import { gotWorse, persistencePanel, riskPanel, timeToFailurePanel } from "../persistence.js";
import { assetOf, chip, findingChip, goesOn, holdEnds, isHeld, pending, priorityChip } from "../statuses.js";
import { bands, decides, orderOf, orders, plant, whyNotDecide } from "../store.js";
import { when } from "../times.js";
import { neighbour } from "./orders.js";

/** What the list leaves out. */
const ONLY_WHOLE = ["history", "persistence", "thresholds", "raised_in", "needed", "observations", "asset", "similar", "standing"];

export class Order {
  constructor(reference) {
    this.reference = reference;
    this.title = "Work order";
    this.head = el("header", { class: "order-head" });
    this.problem = el("div");
    this.evidence = el("section", { class: "panel wide", "aria-labelledby": "evidence-title" });
    this.score = el("section", { class: "panel", "aria-labelledby": "score-title" });
    this.asset = el("section", { class: "panel", "aria-labelledby": "asset-title" });
    this.similar = el("section", { class: "panel", "aria-labelledby": "similar-title" });
    this.history = el("section", { class: "panel", "aria-labelledby": "history-title" });
    this.body = el("div", { class: "order-page" }, el("div", { class: "column" }, this.evidence, this.similar, this.history), el("div", { class: "column" }, this.score, this.asset));
    this.element = el("div", { class: "page" }, this.head, this.problem, this.body);
    const go = (step) => () => { const next = neighbour(reference, step); if (next) location.hash = `#/orders/${next.reference}`; };
    const zoom = (act) => () => this.viewer?.[act]();
    this.keys = { u: () => { location.hash = "#/orders"; }, j: go(1), k: go(-1), h: () => this.toggleHeat?.(), "+": zoom("zoomIn"), "-": zoom("zoomOut"), 0: zoom("zoomReset"), Enter: null };
    this.wanted = new AbortController();
    this.load();
  }

  /** The list's entry is what is true now; the page's own answer has what the list leaves out. */
  order() {
    const listed = orderOf(this.reference);
    if (!listed && !this.full) return null;
    const more = this.full ? Object.fromEntries(ONLY_WHOLE.map((name) => [name, this.full[name]])) : {};
    return { ...this.full, ...listed, ...more };
  }

  async load() {
    clearTimeout(this.again);
    this.isLoading = true;
    this.asked = this.stateNow();
    try {
      this.full = await get(`/api/work-orders/${this.reference}`, this.wanted.signal);
      this.refused = null;
    } catch (error) {
      if (error.name === "AbortError") return;
      this.refused = error;
    }
    this.isLoading = false;
    if (isPassing(this.refused)) this.again = setTimeout(() => this.load(), RETRY_MS);
    this.show();
  }

  /** What the list tells of this order; of one too old for the list, what it tells of all. */
  stateNow() {
    const told = (order) => [order.reference, order.status, order.records, order.head, order.erp_status, order.finding, order.escalations];
    const listed = orderOf(this.reference);
    return JSON.stringify(listed ? told(listed) : [plant.orders?.summary?.work_orders, orders().map(told)]);
  }

  update(kind, reference) {
    if (!plant.isKnown || kind === "tile" || kind === "forwarder" || kind === "inference") return;
    if (kind === "decided" && reference === this.reference) this.asked = null;
    const isNews = this.stateNow() !== this.asked && (this.full || orderOf(this.reference));
    if (isNews && !this.isLoading) this.load();
    this.show();
  }

  show() {
    const order = this.order();
    this.body.hidden = !order;
    this.showProblem(order);
    if (!order) return;
    this.title = `${format.failure(order)}: ${assetOf(order)}`;
    document.title = `${this.title} · Linewatch`;
    renew(this.head, [order, isHeld(order), pending(order), whyNotDecide(), plant.me.role], () => head(order));
    if (renew(this.evidence, [order.evidence, order.evidence_left_out, order.time_to_failure === null, gotWorse(order)], () => this.evidenceOf(order))) this.viewer?.draw?.();
    renew(this.score, [order.risk, order.severity, order.persistence, order.thresholds, order.raised_in, order.time_to_failure, order.escalations, order.model, order.needed, bands(), Boolean(this.full)], () => score(order, !this.full && !this.refused));
    renew(this.asset, [order.asset, order.asset_id, order.location, order.criticality, order.recommended_action], () => asset(order));
    renew(this.similar, [order.similar, Boolean(this.full), Boolean(this.refused)], () => similar(order, this.full || this.refused));
    renew(this.history, [order.history, Boolean(this.full), Boolean(this.refused)], () => history(order, this.full || this.refused));
  }

  evidenceOf(order) {
    const made = evidencePanel(order);
    this.viewer = made.viewer;
    this.toggleHeat = made.toggleHeat;
    return [...made.content, gotWorse(order) && order.evidence?.length > 0 && el("p", { class: "muted" }, "Of the parts that raised it; it got worse since.")];
  }

  showProblem(order) {
    renew(this.problem, [this.refused?.status, this.refused?.message, Boolean(order), this.isLoading], () => {
      if (!this.refused) return order ? [] : [el("p", { class: "loading" }, "Asking the cloud for this order")];
      if (this.refused.status === 404) return [el("div", { class: "empty" }, el("b", {}, "There is no such work order"), el("span", { class: "mono" }, this.reference), el("p", {}, el("a", { href: "#/orders" }, "All orders")))];
      return [el("p", { class: "notice warn" }, icon("clock"), el("span", {}, el("b", {}, order ? "What the cloud keeps of this order can't be shown now" : "This order can't be shown now"), `. ${this.refused.message}`))];
    });
  }

  close() {
    clearTimeout(this.again);
    this.wanted.abort();
  }
}

function head(order) {
  const waits = isHeld(order) ? null : pending(order);
  const before = neighbour(order.reference, -1), after = neighbour(order.reference, 1);
  return [
    el("nav", { class: "crumbs", "aria-label": "Orders" }, el("a", { href: "#/orders", title: "Back to the list (u)" }, icon("back"), "Work orders"), el("span", { class: "mono ellipsis", title: order.reference }, order.reference),
      el("span", { class: "steps" }, step(before, "back", "Previous order (k)"), step(after, "next", "Next order (j)"))),
    el("div", { class: "order-title" },
      el("div", {}, el("h1", { title: order.failure_type || order.failure_mode }, format.failure(order)), el("p", { class: "asset" }, [assetOf(order), order.asset_id, order.location].filter(Boolean).join(" · "))),
      el("div", { class: "order-decide" }, decisionButtons(order, { keys: true }), el("a", { class: "button", href: `#/orders/${order.reference}/why` }, "Why", el("kbd", { "aria-hidden": "true" }, "w")))),
    el("div", { class: "order-strip" }, chip(order), findingChip(order.finding), order.erp_id && el("span", { class: "mono chip plain", title: `State in the ERP: ${order.erp_status ?? "not known"}` }, order.erp_id, order.erp_status && ` · ${order.erp_status}`),
      order.ai_generated && el("span", { class: "chip plain" }, "AI-generated"), order.pilot && el("span", { class: "chip review" }, "Pilot"),
      priorityChip(order), el("span", { class: "strip-fact" }, "Raised ", when(order.created_at)),
      order.decided_by && el("span", { class: "strip-fact", title: order.reason || null }, `${order.status === "rejected" ? "Rejected" : "Decided"} by `, el("b", {}, order.decided_by), " ", order.decided_at && when(order.decided_at), order.reason && `: ${order.reason}`),
      order.closed_by && el("span", { class: "strip-fact", title: order.note || null }, "Closed by ", el("b", {}, order.closed_by), " ", order.closed_at && when(order.closed_at), order.note && `: ${order.note}`),
      order.merged_into && el("span", { class: "strip-fact" }, "Into ", el("a", { class: "mono", href: `#/orders/${order.merged_into}` }, order.merged_into)),
      order.merged?.length > 0 && el("span", { class: "strip-fact" }, `${order.merged.length} merged into it`),
      waits && el("span", { class: "strip-fact pending" }, icon("clock"), when(waits.at, { prefix: `${waits.word} ` }), ` ${waits.why}`)),
    isHeld(order) && held(order),
    order.status === "parked" && parked(order),
  ];
}

/** Why nothing of it is in the ERP yet, what ends that by itself, and what a person can do before. */
function held(order) {
  return el("p", { class: "notice held" }, icon("pause"), el("span", {}, el("b", {}, "Held back by the policy's quiet hours"), ". ", when(holdEnds(order), { prefix: `${goesOn()} ` }),
    ", sooner if it gets bad enough that quiet hours let it through.", decides() && " You need not do anything; approve it to have it placed now, reject it if it is not wanted."));
}

/** Why it is not in the ERP, and what has to happen: by itself, or by somebody. */
function parked(order) {
  const { why, next } = order.standing ?? {};
  const said = why || (order.failure && `The last try ended with: ${order.failure}`);
  return el("p", { class: "notice warn" }, icon("clock"), el("span", {}, el("b", {}, order.is_refused ? "The ERP refused it" : "The ERP did not answer"), ". ",
    [said, order.is_refused ? "Nothing happens by itself: mend the cause, then have it tried again." : next].filter(Boolean).join(" ")));
}

const step = (order, drawing, title) => (order ? el("a", { class: "button icon-only", href: `#/orders/${order.reference}`, title, "aria-label": title }, icon(drawing)) : el("span", { class: "button icon-only off", "aria-hidden": "true" }, icon(drawing)));

function score(order, isLoading) {
  return [el("h2", { id: "score-title" }, "Score against the band"), riskPanel(order, bands()),
    ...persistencePanel(order, isLoading), ...timeToFailurePanel(order.time_to_failure), ...escalations(order),
    facts([["Severity of the last part", format.score(order.severity)], ["Asked for", order.needed ? `${order.needed} of the last ${order.observations} parts` : null], ["Parts that spoke", order.event_ids?.length ? format.count(order.event_ids.length) : null],
      ["Model", order.model?.name ? `${order.model.name} ${order.model.version}` : null, order.model?.digest], ["Policy", order.policy_version], ["Last part taken", order.observed_at ? when(order.observed_at) : "not known: the device's clock was not synchronised"]])];
}

function escalations(order) {
  if (!Array.isArray(order.escalations) || !order.escalations.length) return [];
  return [el("h3", {}, "Escalated"), el("ol", { class: "plain-list" }, ...order.escalations.map((one) => el("li", {}, icon("review"),
    el("span", {}, [one.why || `risk ${format.score(one.risk)}`, one.priority && `priority ${one.priority}`].filter(Boolean).join(", "), " ", one.at && when(one.at)))))];
}

function asset(order) {
  const card = order.asset ?? {};
  const warranty = card.warranty_until ?? order.warranty_until;
  const visits = card.maintenance_history ?? [];
  return [el("h2", { id: "asset-title" }, "Asset"), el("p", { class: "asset-name" }, el("b", {}, card.name || assetOf(order)), el("span", { class: "mono muted" }, order.asset_id)),
    facts([["Criticality", criticality(card.criticality ?? order.criticality)], ["Location", card.location ?? order.location],
      ["Warranty", warranty ? el("span", { class: Date.parse(warranty) < Date.now() ? "" : "in-warranty" }, `${Date.parse(warranty) < Date.now() ? "ended" : "until"} ${format.date(warranty)}`) : null],
      ["Last maintenance", card.last_maintenance ? format.date(card.last_maintenance) : null],
      ["Station", order.line ? `${order.line} / ${order.station}` : null], ["Recommended", order.recommended_action]]),
    visits.length ? el("details", { class: "visits", open: visits.length <= 4 }, el("summary", {}, `Maintenance history (${visits.length})`), el("ol", { class: "plain-list" }, ...visits.map((visit) => el("li", {}, icon("wrench"), visitText(visit)))))
      : order.asset && el("p", { class: "muted" }, "No maintenance is recorded."),
    order.asset?.is_known === false && el("p", { class: "notice warn" }, icon("review"), "This asset is not in the registry.")];
}

const criticality = (value) => value && el("span", {}, el("b", {}, value), el("span", { class: "muted" }, { A: " stops the line", B: " slows the line", C: " has a spare" }[value] ?? ""));

function visitText(visit) {
  if (typeof visit === "string") return el("span", {}, visit);
  return el("span", {}, el("b", {}, format.date(visit.at ?? visit.date)), ` ${visit.what ?? visit.text ?? visit.note ?? ""}`, visit.by && el("span", { class: "muted" }, ` ${visit.by}`));
}

function similar(order, isKnown) {
  const title = el("h2", { id: "similar-title" }, "Similar earlier orders");
  if (!isKnown) return [title, el("p", { class: "loading small" }, "Asking the cloud")];
  if (!order.similar?.length) return [title, el("p", { class: "muted" }, order.similar ? "None on this asset or with this failure mode." : "Not known while the cloud is away.")];
  const judged = order.similar.filter((one) => one.finding && one.finding !== "unstated");
  return [title, judged.length > 0 && el("p", { class: "lead" }, el("b", {}, `${judged.filter((one) => one.finding === "confirmed").length} of ${judged.length}`), " that were looked at were confirmed"),
    el("ol", { class: "similar" }, ...order.similar.map((one) => el("li", {}, el("a", { href: `#/orders/${one.reference}` }, one.erp_id || one.reference), findingChip(one.finding) ?? chip(one),
      el("span", { class: "muted" }, `risk ${format.score(one.risk)}${one.why ? ` · ${one.why}` : ""}`), when(one.created_at, { both: false }))))];
}

function history(order, isKnown) {
  const title = el("div", { class: "panel-head" }, el("h2", { id: "history-title" }, "History"), el("a", { class: "more", href: `#/orders/${order.reference}/why` }, "Whole timeline"));
  if (!isKnown) return [title, el("p", { class: "loading small" }, "Asking the cloud")];
  if (!order.history?.length) return [title, el("p", { class: "muted" }, order.history ? "Nothing is recorded." : "Not known while the cloud is away.")];
  return [title, el("ol", { class: "history" }, ...order.history.map((entry) => el("li", {}, el("b", {}, format.words(entry.what)), entry.by ? ` by ${entry.by}` : "", el("span", {}, when(entry.at), entry.detail || entry.text ? ` ${entry.detail || entry.text}` : ""))))];
}
