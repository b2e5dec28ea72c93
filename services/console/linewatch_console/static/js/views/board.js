// SPDX-License-Identifier: Apache-2.0
// The board: the lines, the orders to decide on, and what waits on the device for the cloud.

import { card } from "../card.js";
import { el, renew, setText } from "../dom.js";
import * as format from "../format.js";
import { OrderList } from "../list.js";
import { queuePanel } from "../queue.js";
import { byUrgency, isHeld } from "../statuses.js";
import { bands, now, orders, plant, settings } from "../store.js";
import { Tiles } from "../tiles.js";

const RECENT = 8;

export class Board {
  constructor() {
    this.title = "Board";
    this.tiles = new Tiles();
    this.list = new OrderList(el("ol", { class: "order-list", "aria-label": "Work orders, those to decide on first" }), card);
    this.none = el("div", { class: "empty", hidden: true });
    this.tally = el("dl", { class: "tally" });
    this.pilot = el("span", { class: "chip review", hidden: true, title: "Pilot mode: every order waits for a person" }, "Pilot");
    this.count = el("span", { class: "muted" });
    this.models = el("span", { class: "muted ellipsis" });
    this.queue = el("div");
    this.element = el("div", { class: "board" }, el("h1", { class: "unseen" }, "Board"),
      el("section", { class: "wall", "aria-labelledby": "wall-title" },
        el("div", { class: "section-head" }, el("h2", { id: "wall-title" }, "Line wall"), this.count, this.tiles.switch), this.tiles.element),
      el("section", { class: "orders", "aria-labelledby": "orders-title" },
        el("div", { class: "section-head" }, el("h2", { id: "orders-title" }, "Work orders"), this.pilot, el("a", { class: "more", href: "#/orders" }, "All orders")),
        this.tally, this.none, this.list.element),
      el("section", { class: "queue", "aria-labelledby": "queue-title" },
        el("div", { class: "section-head" }, el("h2", { id: "queue-title" }, "Queue and uplink"), this.models, el("a", { class: "more", href: "#/device" }, "Device")), this.queue));
    this.keys = { ...this.list.keys, h: () => this.tiles.toggleHeat() };
  }

  order() {
    return this.list.element.contains(document.activeElement) ? this.list.order() : null;
  }

  update(kind, key) {
    if (!plant.isKnown) return;
    this.tiles.update(kind, key);
    setText(this.count, plant.tiles.size ? `${plant.tiles.size} station${plant.tiles.size === 1 ? "" : "s"}` : "");
    if (kind !== "tile") this.showOrders();
    const isHeard = Boolean(plant.edge?.connected);
    const tiles = [...plant.tiles.values()];
    renew(this.queue, [isHeard, plant.forwarder, tiles.map((tile) => tile.status)], () => queuePanel(plant.forwarder, tiles, isHeard));
    setText(this.models, plant.inference.models.map((model) => `${model.name} ${model.version} ${model.variant}`).join(" · "));
  }

  showOrders() {
    const { summary, link } = plant.orders;
    // Whatever a person can still decide on is there; of what went on, the latest.
    const isOpen = (order) => order.status === "awaiting_approval" || isHeld(order);
    const waiting = orders().filter(isOpen).sort(byUrgency);
    const others = orders().filter((order) => !isOpen(order)).slice(0, RECENT);
    this.pilot.hidden = !summary?.pilot;
    this.tally.hidden = !summary;
    if (summary) renew(this.tally, summary.work_orders, () => [
      figure("Awaiting", summary.work_orders.awaiting_approval, summary.work_orders.awaiting_approval ? "review" : ""),
      figure("Created", summary.work_orders.created), figure("Rejected", summary.work_orders.rejected),
      figure("Suppressed", summary.work_orders.suppressed, "", "Alarms that belong to an order that is already open")]);
    this.list.show([...waiting, ...others]);
    this.none.hidden = waiting.length + others.length > 0;
    renew(this.none, link.state, () => empty(link));
  }

  tick(at = now()) {
    this.tiles.tick(at, settings.staleAfter);
  }
}

export function empty(link) {
  const [title, text] = link.state === "off" ? ["Work orders are off", "Set CONSOLE_CLOUD_API_URL and CONSOLE_CLOUD_API_TOKEN_FILE to see and decide them here."]
    : link.state !== "up" ? ["No list yet", "Orders appear once the cloud API answers. The lines go on without it."]
      : ["No work orders yet", `One appears when an asset's risk stays at ${format.score(bands().approval)} or more. Until then everything is recorded.`];
  return [el("b", {}, title), text];
}

function figure(word, value, state = "", title = "") {
  return el("div", { class: state, title: [`${word}: ${format.count(value)}`, title].filter(Boolean).join(". ") }, el("dt", {}, word), el("dd", {}, format.shortCount(value)));
}

