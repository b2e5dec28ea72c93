// SPDX-License-Identifier: Apache-2.0
// The queue of work orders: those that wait for a person first, by priority and then by age.

import { row } from "../card.js";
import { el, icon, renew, setText } from "../dom.js";
import { OrderList } from "../list.js";
import { byUrgency, isHeld } from "../statuses.js";
import { orders, plant } from "../store.js";
import { empty } from "./board.js";

const FILTERS = {
  all: ["All", () => true],
  awaiting: ["Awaiting", (order) => order.status === "awaiting_approval"],
  held: ["Held", isHeld],
  open: ["Open in the ERP", (order) => ["creating", "created"].includes(order.status) && !isHeld(order)],
  parked: ["Parked", (order) => order.status === "parked"],
  done: ["Done", (order) => ["rejected", "merged", "closed"].includes(order.status)],
};
const SEARCHED = ["reference", "asset_id", "asset_name", "location", "failure_mode", "failure_type", "erp_id", "line", "station", "decided_by", "recommended_action"];
/** Kept while the page is open, so that one comes back from an order to the same list. */
const kept = { filter: "all", search: "", reference: "", scroll: 0 };

export class OrderQueue {
  constructor() {
    this.title = "Work orders";
    this.list = new OrderList(el("ol", { class: "rows", "aria-label": "Work orders, awaiting approval first" }), row);
    this.list.selected = kept.reference;
    this.count = el("p", { class: "muted", role: "status" });
    this.none = el("div", { class: "empty", hidden: true });
    this.search = el("input", { type: "search", class: "search", placeholder: "Search asset, failure, order …  ( / )", "aria-label": "Search work orders", value: kept.search, oninput: () => { kept.search = this.search.value; this.show(); },
      onkeydown: (event) => { if (event.key === "Escape" || event.key === "Enter") { this.list.move(0); event.preventDefault(); } } });
    this.filters = el("div", { class: "segments", role: "group", "aria-label": "Which work orders" }, ...Object.entries(FILTERS).map(([name, [word]]) =>
      el("button", { type: "button", "data-filter": name, onclick: () => { kept.filter = name; this.show(); } }, word, el("b", {}))));
    this.element = el("div", { class: "page" },
      el("div", { class: "page-head" }, el("h1", {}, "Work orders"), this.count, el("a", { class: "more", href: "#/policy" }, "Policy"), el("div", { class: "search-box" }, icon("search"), this.search)), this.filters,
      el("p", { class: "loading", hidden: plant.isKnown }, "Asking for the work orders"), this.none, this.list.element);
    this.keys = this.list.keys;
  }

  order() {
    return this.list.order();
  }

  focusSearch() {
    this.search.focus();
    this.search.select();
  }

  update(kind) {
    if (plant.isKnown && kind !== "tile" && kind !== "forwarder") this.show();
  }

  show() {
    this.element.querySelector(".loading").hidden = true;
    const sought = kept.search.trim().toLowerCase().split(/\s+/).filter(Boolean);
    const found = orders().filter((order) => sought.every((word) => SEARCHED.some((name) => String(order[name] ?? "").toLowerCase().includes(word))));
    for (const button of this.filters.children) {
      const [, isIn] = FILTERS[button.dataset.filter];
      button.setAttribute("aria-pressed", String(button.dataset.filter === kept.filter));
      const count = found.filter(isIn).length;
      setText(button.lastChild, button.dataset.filter === "all" || !count ? "" : String(count));
    }
    const shown = found.filter(FILTERS[kept.filter][1]).sort(byUrgency);
    this.list.show(shown);
    setText(this.count, `${shown.length} of ${orders().length}${plant.orders.left_out ? `, and ${plant.orders.left_out} that this console does not understand` : ""}`);
    this.none.hidden = shown.length > 0;
    renew(this.none, [plant.orders.link.state, orders().length > 0, sought, kept.filter], () => (orders().length
      ? [el("b", {}, kept.filter === "awaiting" && !sought.length ? "Nothing awaits approval" : "No order is like that"),
        sought.length ? el("button", { type: "button", class: "button", onclick: () => { this.search.value = kept.search = ""; kept.filter = "all"; this.show(); } }, "Show all orders") : "Orders between the two bands wait here for a person."]
      : empty(plant.orders.link)));
  }

  close() {
    kept.reference = this.list.selected;
  }
}

/** The order before or after `reference` as the queue shows them. */
export function neighbour(reference, step) {
  const shown = orders().filter(FILTERS[kept.filter][1]).sort(byUrgency);
  const at = shown.findIndex((order) => order.reference === reference);
  return at < 0 ? null : shown[at + step] ?? null;
}
