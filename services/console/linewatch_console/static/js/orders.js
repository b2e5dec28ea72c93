// SPDX-License-Identifier: Apache-2.0
// The list of work orders: newest first, by mouse and by keyboard.

import { el, icon, setText } from "./dom.js";
import * as format from "./format.js";

export const STATUSES = {
  awaiting_approval: { word: "Awaiting approval", state: "review", drawing: "review" },
  creating: { word: "Creating", state: "", drawing: "clock" },
  created: { word: "In the ERP", state: "ok", drawing: "ok" },
  rejected: { word: "Rejected", state: "", drawing: "none" },
  parked: { word: "Parked: ERP away", state: "ng", drawing: "clock" },
  closed: { word: "Closed", state: "", drawing: "ok" },
};

export class Orders {
  /** `actions`: open(order), decide(order, decision). */
  constructor(actions) {
    this.actions = actions;
    this.filter = "all";
    this.selected = "";
    this.content = null;
    this.list = document.getElementById("orders-list");
    this.notice = document.getElementById("orders-link");
    this.tally = document.getElementById("orders-summary");
    for (const button of document.querySelectorAll("[data-filter]")) {
      button.addEventListener("click", () => this.setFilter(button.dataset.filter));
    }
    document.addEventListener("keydown", (event) => this.onKey(event));
  }

  setFilter(filter) {
    this.filter = filter;
    for (const button of document.querySelectorAll("[data-filter]")) {
      button.setAttribute("aria-pressed", String(button.dataset.filter === filter));
    }
    this.render();
  }

  update(content) {
    this.content = content;
    this.render();
  }

  get mayDecide() {
    return this.content?.link.state === "up";
  }

  find(reference) {
    return this.content?.orders.find((order) => order.reference === reference);
  }

  render() {
    if (!this.content) return;
    const { link, summary, orders } = this.content;
    this.renderNotice(link);
    const waiting = summary?.work_orders.awaiting_approval ?? orders.filter((order) => order.status === "awaiting_approval").length;
    setText(document.getElementById("awaiting-count"), waiting ? String(waiting) : "");
    document.getElementById("pilot").hidden = !summary?.pilot;
    this.tally.replaceChildren(...(summary ? [
      figure("Awaiting", summary.work_orders.awaiting_approval, summary.work_orders.awaiting_approval ? "review" : ""),
      figure("Created", summary.work_orders.created),
      figure("Rejected", summary.work_orders.rejected),
      figure("Suppressed", summary.work_orders.suppressed, "", "Alarms that belong to an order that is already open"),
    ] : []));
    this.tally.hidden = !summary;
    const shown = orders.filter((order) => this.filter === "all" || order.status === this.filter);
    if (!shown.some((order) => order.reference === this.selected)) this.selected = shown[0]?.reference ?? "";
    document.querySelector(".keys").hidden = !shown.length;
    const hadFocus = this.list.contains(document.activeElement);
    const scroll = this.list.scrollTop;
    this.list.replaceChildren(...(shown.length ? shown.map((order) => this.card(order)) : [this.empty(link)]));
    this.list.scrollTop = scroll;
    if (hadFocus) this.card_of(this.selected)?.focus({ preventScroll: true });
  }

  renderNotice(link) {
    this.notice.hidden = link.state === "up" || link.state === "off";
    if (this.notice.hidden) return;
    const isDown = link.state === "down";
    this.notice.className = `notice ${isDown ? "bad" : ""}`;
    const text = isDown ? `the cloud API is not reachable since ${format.timeOf(link.since)}; approvals are off.`
      : "waiting for the cloud API's first answer.";
    const aside = [link.detail, isDown && this.content.as_of ? `The list is of ${format.timeOf(this.content.as_of, true)}.` : ""];
    this.notice.replaceChildren(icon(isDown ? "broken" : "dash"), el("span", {}, el("b", {}, "Work orders: "), text, " ",
      el("span", { class: "muted" }, aside.filter(Boolean).join(". ").replace("..", "."))));
  }

  empty(link) {
    const [title, text] = link.state === "off" ? ["Work orders are off", "Set CONSOLE_CLOUD_API_URL and CONSOLE_CLOUD_API_TOKEN_FILE to see and decide them here."]
      : link.state !== "up" ? ["No list yet", "Orders appear once the cloud API answers. The lines go on without it."]
      : this.filter === "all" ? ["No work orders yet", "One appears when an asset's risk stays above 0.5. Until then everything is recorded."]
        : ["Nothing awaits approval", "Orders between risk 0.5 and 0.8 wait here for a person."];
    return el("li", { class: "empty" }, el("b", {}, title), text);
  }

  card(order) {
    const isWaiting = order.status === "awaiting_approval";
    const isSelected = order.reference === this.selected;
    return el("li", {
      class: `order ${isWaiting ? "" : "compact"}`, tabindex: isSelected ? "0" : "-1", "aria-current": String(isSelected), "data-reference": order.reference,
      onclick: (event) => { if (!event.target.closest("button")) { this.select(order.reference); this.actions.open(order); } },
      onfocus: () => this.select(order.reference, false),
    },
    thumbnail(order),
    el("div", {},
      el("div", { class: "order-top" }, chip(order.status), order.erp_id && el("span", { class: "mono erp" }, order.erp_id),
        !order.erp_id && el("time", { datetime: order.created_at }, format.timeOf(order.created_at))),
      el("h3", { title: order.failure_type }, format.failure(order)),
      el("p", { class: "asset" }, `${order.asset_name || order.asset_id} · ${order.asset_id} · ${order.failure_mode}`)),
    isWaiting && waitingFacts(order, this.content.summary?.bands),
    isWaiting && el("p", { class: "order-action" }, order.recommended_action),
    isWaiting && el("div", { class: "order-buttons" }, this.button(order, "approve"), this.button(order, "reject")));
  }

  button(order, decision) {
    const isApproval = decision === "approve";
    return el("button", {
      type: "button", class: `button ${isApproval ? "primary" : "danger"}`, disabled: !this.mayDecide, tabindex: order.reference === this.selected ? "0" : "-1",
      title: this.mayDecide ? "" : "The cloud API is not reachable: approvals are off",
      onclick: () => this.actions.decide(order, decision),
    }, isApproval ? "Approve" : "Reject");
  }

  card_of(reference) {
    return [...this.list.children].find((card) => card.dataset.reference === reference);
  }

  select(reference, withFocus = true) {
    this.selected = reference;
    for (const card of this.list.children) {
      const isSelected = card.dataset.reference === reference;
      card.setAttribute("aria-current", String(isSelected));
      card.tabIndex = isSelected ? 0 : -1;
      for (const button of card.querySelectorAll("button")) button.tabIndex = isSelected ? 0 : -1;
    }
    if (withFocus) this.card_of(reference)?.focus();
  }

  onKey(event) {
    const isElsewhere = document.activeElement !== document.body && !document.getElementById("orders").contains(document.activeElement);
    if (event.ctrlKey || event.altKey || event.metaKey || document.querySelector("dialog[open]") || isElsewhere) return;
    const cards = [...this.list.children].filter((card) => card.dataset.reference);
    const at = cards.findIndex((card) => card.dataset.reference === this.selected);
    const order = this.find(this.selected);
    if (event.key === "j" || event.key === "k") {
      // The first press only enters the list.
      const step = this.list.contains(document.activeElement) ? (event.key === "j" ? 1 : -1) : 0;
      const next = cards[Math.max(0, Math.min(cards.length - 1, at + step))];
      if (next) this.select(next.dataset.reference);
    } else if (!this.list.contains(document.activeElement) || !order) return;
    else if (event.key === "Enter" && !event.target.closest("button")) this.actions.open(order);
    else if (event.key === "a" && this.mayDecide && order.status === "awaiting_approval") this.actions.decide(order, "approve");
    else if (event.key === "r" && this.mayDecide && order.status === "awaiting_approval") this.actions.decide(order, "reject");
    else return;
    event.preventDefault();
  }
}

export function chip(status) {
  const known = STATUSES[status];
  return el("span", { class: `chip ${known.state}` }, icon(known.drawing), known.word);
}

export function riskBar(risk, bands = { approval: 0.5, automatic: 0.8 }) {
  const bar = el("div", { class: "risk", role: "img", "aria-label": `Risk ${format.score(risk)}; approval from ${bands.approval}, automatic above ${bands.automatic}` });
  bar.style.setProperty("--approval", `${bands.approval * 100}%`);
  bar.style.setProperty("--automatic", `${bands.automatic * 100}%`);
  if (typeof risk === "number") {
    const mark = el("i");
    mark.style.left = `${Math.max(0, Math.min(1, risk)) * 100}%`;
    bar.append(mark);
  }
  return bar;
}

export function thumbnail(order, one = pictureOf(order)) {
  const missing = () => el("span", { class: "thumb missing" }, icon(order.evidence.some((file) => file.kind === "window") ? "chart" : "picture"));
  if (!one?.url) return missing();
  return el("img", { class: "thumb", src: one.url, alt: `${one.kind} of the evidence`, loading: "lazy", onerror: (event) => event.target.replaceWith(missing()) });
}

const pictureOf = (order) => order.evidence.filter((file) => file.kind === "frame").at(-1);

function waitingFacts(order, bands) {
  return el("dl", { class: "order-facts" },
    el("div", {}, el("dt", {}, "Risk"), el("dd", {}, `${format.score(order.risk)} `, riskBar(order.risk, bands))),
    el("div", {}, el("dt", {}, "Time to failure"), el("dd", {}, order.time_to_failure ? format.timeToFailure(order.time_to_failure) : "not estimated"),
      order.time_to_failure?.hours && el("dd", { class: "muted" }, hours(order.time_to_failure.hours))));
}

export function hours(interval) {
  return `about ${format.count(interval.p50)} h (${format.count(interval.p10)}–${format.count(interval.p90)})`;
}

function figure(word, value, state = "", title = "") {
  return el("div", { class: state, title }, el("dt", {}, word), el("dd", {}, format.count(value)));
}
