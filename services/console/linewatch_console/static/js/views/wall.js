// SPDX-License-Identifier: Apache-2.0
// The wall screen: what stands five metres away has to read. Everything fits the screen; nothing asks for a hand.

import { el, icon, renew, setText } from "../dom.js";
import * as format from "../format.js";
import { waiting } from "../head.js";
import { now, plant, settings } from "../store.js";
import { Tiles } from "../tiles.js";

export class Wall {
  constructor() {
    this.title = "Wall";
    this.tiles = new Tiles();
    this.facts = el("ul", { class: "wall-facts", "aria-label": "The plant now" });
    this.clock = el("time", { class: "wall-clock" });
    this.element = el("div", { class: "wall-screen" },
      el("header", { class: "wall-head" }, el("h1", {}, settings.site), this.facts, this.clock,
        el("div", { class: "wall-tools" }, this.tiles.switch,
          el("button", { class: "button icon-only", type: "button", "aria-label": "Full screen", title: "Full screen (f)", onclick: () => this.fill() }, icon("whole")),
          el("a", { class: "button icon-only", href: "#/", "aria-label": "Back to the board", title: "Back to the board (g b)" }, icon("close")))),
      el("h2", { class: "unseen" }, "Stations"), this.tiles.element);
    this.keys = { f: () => this.fill(), h: () => this.tiles.toggleHeat() };
    this.keepAwake();
  }

  update(kind, key) {
    if (!plant.isKnown) return;
    this.tiles.update(kind, key);
    const count = plant.tiles.size;
    // As square a grid as the number allows; CSS can't count.
    this.tiles.element.dataset.columns = String(Math.min(6, Math.max(1, Math.ceil(Math.sqrt(count)))));
    this.tiles.element.dataset.many = String(count > 4);
    this.showFacts();
  }

  showFacts() {
    const stations = [...plant.tiles.values()];
    const bad = stations.filter((tile) => tile.last?.result === "NG" && !this.isStale(tile)).length;
    const stale = stations.filter((tile) => this.isStale(tile)).length;
    const uplink = plant.edge?.connected && plant.forwarder.uplink;
    const count = waiting();
    const one = (state, drawing, number, word) => el("li", { class: state }, icon(drawing), el("b", {}, number), el("span", {}, word));
    renew(this.facts, [stations.length, bad, stale, uplink?.connected, count, plant.edge?.connected, plant.orders?.link.state], () => [
      one(bad ? "ng" : "ok", bad ? "ng" : "ok", String(bad), bad === 1 ? "station NG" : "stations NG"),
      stale > 0 && one("none", "clock", String(stale), "stale"),
      one(count ? "review" : "none", count ? "review" : "ok", String(count), count === 1 ? "order awaits approval" : "orders await approval"),
      one(uplink?.connected ? "ok" : "ng", uplink?.connected ? "linked" : "broken", uplink ? (uplink.connected ? "Online" : "Offline") : "Uplink", uplink ? "" : "not known"),
    ]);
  }

  isStale(tile) {
    return !tile.last || now() - tile.last.taken_at > settings.staleAfter;
  }

  tick(at) {
    this.tiles.tick(at, settings.staleAfter);
    if (plant.isKnown) this.showFacts();
    setText(this.clock, format.now());
  }

  fill() {
    if (document.fullscreenElement) document.exitFullscreen();
    else document.documentElement.requestFullscreen().catch(() => {});
  }

  /** A screen that shows a line does not go dark; where the browser can't hold it, the machine's own setting must. */
  async keepAwake() {
    try {
      this.lock = await navigator.wakeLock?.request("screen");
    } catch { /* not allowed here */ }
  }

  close() {
    this.lock?.release();
  }
}
