// SPDX-License-Identifier: Apache-2.0
// A list of orders that one walks with j and k: one stop of Tab, the chosen one keeps the focus whatever the list becomes.

import { keyed } from "./dom.js";

export class OrderList {
  /** `make(order)` answers with {element: an <li>, update(order)}. */
  constructor(element, make) {
    this.element = element;
    this.make = make;
    this.selected = "";
    this.orders = [];
    element.addEventListener("focusin", (event) => this.select(event.target.closest("[data-reference]")?.dataset.reference, false));
    element.addEventListener("click", (event) => {
      const card = event.target.closest("[data-reference]");
      if (card && !event.target.closest("button, a")) location.hash = `#/orders/${card.dataset.reference}`;
    });
  }

  show(orders) {
    this.orders = orders;
    const hadFocus = this.element.contains(document.activeElement);
    const before = this.position;
    this.made = keyed(this.element, orders, (order) => order.reference, this.make);
    // Who stood on an order that went stands on the one that took its place.
    if (!this.order()) this.selected = orders[Math.min(Math.max(0, before), orders.length - 1)]?.reference ?? "";
    this.position = orders.findIndex((order) => order.reference === this.selected);
    this.mark();
    if (hadFocus && !this.element.contains(document.activeElement)) this.made.get(this.selected)?.element.focus({ preventScroll: true });
  }

  order() {
    return this.orders.find((order) => order.reference === this.selected) ?? null;
  }

  select(reference, withFocus = true) {
    if (!reference) return;
    this.selected = reference;
    this.position = this.orders.findIndex((order) => order.reference === reference);
    this.mark();
    if (withFocus) this.made.get(reference)?.element.focus();
  }

  mark() {
    for (const [reference, { element }] of this.made ?? []) {
      const isSelected = reference === this.selected;
      element.tabIndex = isSelected ? 0 : -1;
      element.setAttribute("aria-current", String(isSelected));
      for (const button of element.querySelectorAll("button")) button.tabIndex = isSelected ? 0 : -1;
    }
  }

  /** The first press only enters the list. */
  move(step) {
    if (!this.orders.length) return;
    const from = this.element.contains(document.activeElement) ? step : 0;
    const next = Math.max(0, Math.min(this.orders.length - 1, Math.max(0, this.position ?? 0) + from));
    this.select(this.orders[next].reference);
  }

  get keys() {
    return { j: () => this.move(1), k: () => this.move(-1) };
  }
}
