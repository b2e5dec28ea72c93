// SPDX-License-Identifier: Apache-2.0
// Wires the page: one stream in, each message to the part of the page that shows it.

import { askDecision, openOrder } from "./dialogs.js";
import { el, icon, setText } from "./dom.js";
import * as format from "./format.js";
import { Orders } from "./orders.js";
import { queuePanel } from "./queue.js";
import { Tile, thresholdsOf } from "./tile.js";

const STALE_AFTER_S = Number(document.body.dataset.staleAfterS);
const SITE = document.body.dataset.site;
const at = (id) => document.getElementById(id);

const plant = { tiles: new Map(), edge: null, forwarder: { state: "unknown", uplink: null, streams: [] }, inference: { state: "unknown", models: [] }, orders: null };
const shown = new Map();
const orders = new Orders({
  open: (order) => openOrder(order, { bands: orders.content.summary?.bands, mayDecide: orders.mayDecide }),
  decide: askDecision,
});
let clockOffset = 0; // seconds to add to this browser's clock to have the console's
let isHeatOn = true;
let queued = "";

function onTile(tile) {
  plant.tiles.set(tile.key, tile);
  let made = shown.get(tile.key);
  if (!made || made.kind !== tile.kind) {
    made?.element.remove();
    made = new Tile(tile);
    made.stage.setHeat?.(isHeatOn);
    shown.set(tile.key, made);
    at("tiles").querySelector(".empty")?.remove();
    const next = [...shown.keys()].sort().find((key) => key > tile.key && shown.get(key).element.isConnected);
    at("tiles").insertBefore(made.element, next ? shown.get(next).element : null);
  }
  made.update(tile, thresholdsOf(tile, plant.inference.models));
  made.tick(Date.now() / 1000 + clockOffset, STALE_AFTER_S);
  setText(at("wall-count"), `${shown.size} station${shown.size === 1 ? "" : "s"}`);
}

function onSnapshot(content) {
  clockOffset = content.now - Date.now() / 1000;
  plant.inference = content.inference;
  plant.tiles.clear();
  shown.clear();
  at("tiles").replaceChildren();
  if (!content.tiles.length) at("tiles").append(emptyWall());
  content.tiles.forEach(onTile);
  plant.edge = content.edge;
  plant.forwarder = content.forwarder;
  onOrders(content.orders);
  renderDevice();
}

function onOrders(content) {
  plant.orders = content;
  orders.update(content);
  renderLinks();
}

function emptyWall() {
  return el("div", { class: "empty" }, el("b", {}, "No station has been heard of yet"),
    "A tile appears with a station's first part or status on ", el("code", {}, `linewatch/v1/${SITE}/+/+/inspection`), ".");
}

function renderDevice() {
  const isHeard = Boolean(plant.edge?.connected);
  document.body.classList.toggle("unheard", !isHeard);
  const content = JSON.stringify([isHeard, plant.forwarder, [...plant.tiles.values()].map((tile) => tile.status)]);
  if (content !== queued) {
    queued = content;
    at("queue").replaceChildren(queuePanel(plant.forwarder, [...plant.tiles.values()], isHeard));
  }
  setText(at("models"), plant.inference.models.map((model) => `${model.name} ${model.version} ${model.variant}`).join(" · "));
  renderLinks();
}

function renderLinks() {
  const { edge, forwarder, orders: cloud } = plant;
  // What the forwarder said last is no news once the way to it is broken.
  const uplink = forwarder.state === "offline" || !edge?.connected ? null : forwarder.uplink;
  const links = [
    edge && ["Broker", edge.connected, edge.connected ? "connected" : "away", edge],
    ["Uplink", uplink ? uplink.connected : null, uplink ? (uplink.connected ? "online" : "offline") : "unknown", uplink],
    cloud && ["Cloud API", cloud.link.state === "down" ? false : cloud.link.state === "up" ? true : null,
      { up: "reachable", down: "away", off: "not set", waiting: "waiting" }[cloud.link.state], cloud.link],
  ].filter(Boolean);
  const told = JSON.stringify(links);
  if (renderLinks.told !== told) {
    renderLinks.told = told;
    at("links").replaceChildren(...links.map(([name, isUp, word, link]) =>
      el("li", { class: `link ${isUp === null ? "idle" : isUp ? "" : "bad"}`, title: [link?.since && `since ${format.timeOf(link.since, true)}`, link?.detail].filter(Boolean).join(": ") },
        icon(isUp === null ? "dash" : isUp ? "linked" : "broken"), el("span", {}, `${name} `, el("b", {}, word)))));
  }
  renderNotices();
}

let lostAt = null;

function renderNotices() {
  const notices = [];
  if (lostAt) notices.push(["bad", `This page lost the console at ${format.timeOf(lostAt, true)}`, "It shows what was then, and asks again by itself."]);
  else if (plant.edge && !plant.edge.connected) {
    const heard = shown.size ? "The wall shows what was last heard." : "Nothing has been heard yet.";
    notices.push(["bad", `The broker is not reachable since ${format.timeOf(plant.edge.since)}`, `${heard} ${plant.edge.detail}`]);
  }
  const told = JSON.stringify(notices);
  if (renderNotices.told === told) return;
  renderNotices.told = told;
  at("notices").replaceChildren(...notices.map(([kind, title, text]) => el("p", { class: `notice ${kind}` }, icon("broken"), el("span", {}, el("b", {}, title), ". ", text))));
  document.body.classList.toggle("away", Boolean(lostAt));
}

function toggleHeat() {
  isHeatOn = !isHeatOn;
  at("heat").setAttribute("aria-pressed", String(isHeatOn));
  for (const tile of shown.values()) tile.stage.setHeat?.(isHeatOn);
}

at("heat").addEventListener("click", toggleHeat);
document.addEventListener("keydown", (event) => {
  const isFree = document.activeElement === document.body || at("heat") === document.activeElement;
  if (event.key === "h" && isFree && !event.ctrlKey && !event.metaKey && !event.altKey) toggleHeat();
});

const stream = new EventSource("/api/stream");
const listen = (kind, act) => stream.addEventListener(kind, (message) => act(JSON.parse(message.data)));
listen("snapshot", onSnapshot);
listen("tile", (tile) => { onTile(tile); renderDevice(); });
listen("edge", (content) => { plant.edge = content; renderDevice(); });
listen("forwarder", (content) => { plant.forwarder = content; renderDevice(); });
listen("inference", (content) => { plant.inference = content; renderDevice(); });
listen("orders", onOrders);
stream.addEventListener("open", () => { lostAt = null; renderNotices(); });
stream.addEventListener("error", () => {
  lostAt ??= new Date().toISOString();
  renderNotices();
  // The browser gives up for good when it is answered with an error, such as a session that has ended.
  if (stream.readyState === EventSource.CLOSED) setTimeout(() => location.reload(), 5000);
});

setInterval(() => {
  const now = Date.now() / 1000 + clockOffset;
  for (const tile of shown.values()) tile.tick(now, STALE_AFTER_S);
  setText(at("clock"), format.now());
}, 250);
