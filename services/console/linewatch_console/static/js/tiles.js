// SPDX-License-Identifier: Apache-2.0
// The stations, each with its tile: on the board and on the wall screen.

import { el, icon, keyed } from "./dom.js";
import { bands, now, plant, settings } from "./store.js";
import { Tile, thresholdsOf } from "./tile.js";

const HEAT = "linewatch-heat";

export class Tiles {
  constructor() {
    this.element = el("div", { class: "tiles" }, el("p", { class: "loading" }, "Listening to the line"));
    this.isHeatOn = localStorage.getItem(HEAT) !== "off";
    this.switch = el("button", { class: "button quiet toggle", type: "button", "aria-pressed": String(this.isHeatOn), title: "Heat map on pictures (h)", onclick: () => this.toggleHeat() }, "Heat map");
  }

  /** After the message `kind`; `key` names the tile of a message about one. */
  update(kind, key) {
    if (kind === "snapshot" || (kind === "tile" && !this.made?.has(nameOf(plant.tiles.get(key))))) this.showAll();
    else if (kind === "tile") this.made.get(nameOf(plant.tiles.get(key))).update(plant.tiles.get(key));
  }

  showAll() {
    this.element.querySelector(":scope > .loading, :scope > .empty")?.remove();
    const tiles = [...plant.tiles.values()].sort((a, b) => (a.key < b.key ? -1 : 1));
    if (!tiles.length) this.element.append(el("div", { class: "empty" }, icon("picture"), el("b", {}, "No station has been heard of yet"),
      "A tile appears with a station's first part or status on ", el("code", {}, `linewatch/v1/${settings.site}/+/+/inspection`), "."));
    this.made = keyed(this.element, tiles, nameOf, (tile) => this.make(tile));
  }

  make(tile) {
    const made = new Tile(tile);
    made.stage.setHeat?.(this.isHeatOn);
    return { element: made.element, tile: made, update: (one) => {
      made.update(one, thresholdsOf(one, plant.inference.models));
      made.tick(now(), settings.staleAfter);
    } };
  }

  toggleHeat() {
    this.isHeatOn = !this.isHeatOn;
    localStorage.setItem(HEAT, this.isHeatOn ? "on" : "off");
    this.switch.setAttribute("aria-pressed", String(this.isHeatOn));
    for (const { tile } of this.made?.values() ?? []) tile.stage.setHeat?.(this.isHeatOn);
  }

  tick(at, staleAfter) {
    for (const { tile } of this.made?.values() ?? []) {
      tile.tick(at, staleAfter);
      tile.stage.showBands?.(bands(), Boolean(plant.orders?.summary?.pilot));
    }
  }
}

/** A station that turns out to be a sensor gets another tile. */
const nameOf = (tile) => `${tile.key} ${tile.kind}`;
