// SPDX-License-Identifier: Apache-2.0
// The device beside the line: its way out and what waits there, the models that it serves, its clock, and what it had to put aside.

import { el, icon, renew } from "../dom.js";
import * as format from "../format.js";
import { queuePanel } from "../queue.js";
import { plant, settings } from "../store.js";
import { when } from "../times.js";

export class Device {
  constructor() {
    this.title = "Device";
    this.queue = el("div");
    this.health = el("div", { class: "cards" });
    this.models = el("div");
    this.letters = el("div");
    this.element = el("div", { class: "page" }, el("div", { class: "page-head" }, el("h1", {}, settings.device), el("p", { class: "muted" }, settings.site)),
      this.health, section("queue-title", "Queue and uplink", this.queue), section("models-title", "Models", this.models), section("letters-title", "Dead letters", this.letters));
    this.element.querySelector("[aria-labelledby=queue-title]").classList.add("queue");
    this.keys = {};
  }

  update() {
    if (!plant.isKnown) return;
    const isHeard = Boolean(plant.edge?.connected);
    const tiles = [...plant.tiles.values()];
    const { forwarder, inference } = plant;
    renew(this.queue, [isHeard, forwarder, tiles.map((tile) => tile.status)], () => queuePanel(forwarder, tiles, isHeard));
    renew(this.health, [isHeard, plant.edge, plant.device, forwarder, inference.state, tiles.map((tile) => [tile.key, tile.status?.state, tile.status?.detail]), Math.round(plant.clockOffset)], () => health(isHeard, tiles));
    renew(this.models, [inference, tiles.map((tile) => [tile.key, tile.last?.model])], () => [models(inference, tiles), resting(inference)]);
    renew(this.letters, forwarder.dead_letters, () => letters(forwarder.dead_letters));
  }
}

const section = (id, title, content) => el("section", { "aria-labelledby": id }, el("div", { class: "section-head" }, el("h2", { id }, title)), content);

function health(isHeard, tiles) {
  const { edge, forwarder, inference } = plant;
  const isKnown = isHeard || !edge;
  const service = (state) => (state === "unknown" ? ["none", "dash", "not heard of"] : state === "offline" || state === "stopped" ? ["ng", "broken", "off"] : ["ok", "ok", format.words(state)]);
  const captures = tiles.filter((tile) => tile.status);
  const off = captures.filter((tile) => ["offline", "stopped"].includes(tile.status.state));
  const budgets = [...forwarder.streams, ...captures.map((tile) => tile.status.spool).filter(Boolean)].filter((one) => one.max_bytes);
  const used = budgets.reduce((sum, one) => sum + one.bytes, 0), budget = budgets.reduce((sum, one) => sum + one.max_bytes, 0);
  const days = forwarder.uplink?.certificate_days;
  return [
    tell("Broker", edge?.connected ? ["ok", "linked", "Connected"] : ["ng", "broken", "Away"], edge ? el("span", {}, "since ", when(edge.since), edge.detail ? `: ${edge.detail}` : "") : "waiting"),
    tell("Inference", isKnown ? service(inference.state) : ["none", "dash", "not known"], `${inference.models.length} model${inference.models.length === 1 ? "" : "s"} served`),
    tell("Capture", off.length ? ["ng", "broken", `${off.length} off`] : captures.length ? ["ok", "ok", "Running"] : ["none", "dash", "not heard of"], off.map((tile) => tile.key).join(", ") || `${captures.length} station${captures.length === 1 ? "" : "s"}`),
    tell("Disk budget of events", !budget ? ["none", "dash", "not known"] : used / budget > 0.9 ? ["ng", "review", format.percent(used / budget)] : ["ok", "ok", format.percent(used / budget)], budget ? `${format.bytes(used)} of ${format.bytes(budget)}${forwarder.streams.some((one) => one.full) ? "; a stream is full" : ""}` : "tells once the forwarder speaks"),
    tell("Evidence upload", evidence(forwarder.evidence), forwarder.evidence?.trouble || forwarder.evidence?.why || (forwarder.evidence?.waiting_files ? `${format.count(forwarder.evidence.waiting_files)} files, ${format.bytes(forwarder.evidence.waiting_bytes)} wait` : "nothing waits")),
    clock(),
    ...(plant.device?.disks ?? []).map(disk),
    tell("Certificate", typeof days !== "number" ? ["none", "dash", "not told"] : days > 30 ? ["ok", "ok", `${Math.floor(days)} days`] : ["ng", "review", days > 0 ? `${Math.floor(days)} days` : "has ended"], "of the uplink, until it ends"),
    tell("Dead letters", forwarder.dead_letters?.count ? ["ng", "review", `${forwarder.dead_letters.is_more ? "> " : ""}${format.count(forwarder.dead_letters.count)}`] : ["ok", "ok", forwarder.dead_letters ? "None" : "not told"], "events that can never be delivered"),
  ];
}

function clock() {
  const isSet = plant.device?.clock?.synchronised;
  const off = Math.abs(plant.clockOffset);
  const beside = off > 5 ? `this browser is ${format.duration(off)} ${plant.clockOffset > 0 ? "behind" : "ahead"}` : "in step with this browser";
  return tell("Clock", isSet === false ? ["review", "review", "Not synchronised"] : isSet ? ["ok", "ok", "Synchronised"] : off > 5 ? ["review", "clock", "Differs"] : ["ok", "ok", "In step"], beside);
}

const DISKS = { evidence: "Disk of evidence", state: "Disk of this console" };

function disk(one) {
  const used = one.used;
  const word = typeof used !== "number" ? ["ng", "review", "Can't be asked"] : used > 0.95 || one.trouble ? ["ng", "review", `${format.percent(used)} full`] : used > 0.85 ? ["review", "review", `${format.percent(used)} full`] : ["ok", "ok", `${format.percent(used)} full`];
  return tell(DISKS[one.name] ?? one.name, word, one.trouble || `${format.bytes(one.free_bytes)} of ${format.bytes(one.total_bytes)} free`);
}

function evidence(one) {
  if (!one?.state) return ["none", "dash", "not told"];
  if (one.trouble) return ["ng", "review", "Trouble"];
  return one.state === "off" ? ["none", "dash", "Off"] : ["ok", "ok", format.words(one.state)];
}

const tell = (name, [state, drawing, word], text) => el("div", { class: `card ${state}` }, el("h2", {}, name), el("p", { class: "card-word" }, icon(drawing), word), el("p", { class: "muted" }, text));

function models(inference, tiles) {
  if (!inference.models.length) return el("div", { class: "empty" }, icon("chart"), el("b", {}, inference.state === "unknown" ? "The inference service has not been heard of" : "No model is served"), "It tells of its models as soon as it runs.");
  return el("div", { class: "table-box panel", tabindex: "0", role: "region", "aria-label": "Models" }, el("table", { class: "numbers models" }, el("thead", {}, el("tr", {}, ...["Model", "Version", "Variant", "Runs on", "State", "Review / NG from", "Stations", "Digest"].map((word) => el("th", { scope: "col" }, word)))),
    el("tbody", {}, ...inference.models.map((model) => el("tr", {}, el("th", { scope: "row" }, model.name), el("td", {}, model.version), el("td", {}, model.variant || "–"), el("td", {}, model.provider || "–"),
      el("td", {}, el("span", { class: `chip ${{ READY: "ok", UNAVAILABLE: "ng" }[model.state?.toUpperCase()] ?? ""}`, title: model.reason || null }, icon({ READY: "ok", UNAVAILABLE: "ng" }[model.state?.toUpperCase()] ?? "clock"), format.words((model.state || "not told").toLowerCase())), model.reason && el("span", { class: "muted reason" }, model.reason)), el("td", {}, model.thresholds ? `${format.score(model.thresholds.review)} / ${format.score(model.thresholds.ng)}` : "–"),
      el("td", {}, tiles.filter((tile) => tile.last?.model?.name === model.name && tile.last.model.version === model.version).map((tile) => tile.key).join(", ") || "–"), el("td", { class: "mono", title: model.digest }, format.digest(model.digest)))))));
}

/** "pv-el-cells 0.9.0, 0.9.1; turbofan 0.8.0": what a rollback finds here without the cloud. */
function resting({ on_disk: found = [], on_disk_more: more = 0 }) {
  if (!found.length) return null;
  const versionsOf = (name) => found.filter((one) => one.name === name).map((one) => one.version).join(", ");
  const named = [...new Set(found.map((one) => one.name))].map((name) => `${name} ${versionsOf(name)}`).join("; ");
  return el("p", { class: "muted resting" }, "On the device, not serving: ", el("b", {}, named), more ? ` and ${format.count(more)} more` : "", ".");
}

function letters(all) {
  if (!all?.count) return el("p", { class: "muted" }, all ? "None lies aside. An event that can never be delivered would be listed here with its reason." : "The forwarder has not told of any.");
  return el("div", { class: "panel letters" }, el("p", {}, el("b", {}, `${all.is_more ? "More than " : ""}${format.count(all.count)}`), " lie aside on the device. ", "On the device, ", el("code", {}, "docker exec linewatch-forwarder python3 -m linewatch_forwarder.dead_letters list"), " lists them; docs/dead-letters.md says how they are replayed."),
    el("ol", { class: "plain-list" }, ...all.newest.map((letter) => el("li", {}, el("span", { class: "mono" }, `${letter.number}`), el("b", {}, letter.stream), el("span", { class: "muted" }, letter.reason)))));
}

