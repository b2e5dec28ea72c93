// SPDX-License-Identifier: Apache-2.0
// What waits on this device for the cloud, and whether it can leave.

import { el, icon } from "./dom.js";
import * as format from "./format.js";

/** The panel's content from the forwarder's status and each station's capture status. */
export function queuePanel(forwarder, tiles, isHeard) {
  const spools = tiles.filter((tile) => tile.status);
  return el("div", { class: "panel" }, uplink(forwarder, isHeard),
    el("div", { class: "streams-box", tabindex: "0", role: "region", "aria-label": "Streams" },
      forwarder.streams.length || spools.length ? table(forwarder.streams, spools)
        : el("p", { class: "muted none-yet" }, "No stream has been heard of yet. The forwarder tells of its streams once a second while it runs.")));
}

function uplink(forwarder, isHeard) {
  if (forwarder.state === "unknown" || forwarder.state === "offline") {
    const word = forwarder.state === "unknown" ? "Not heard of" : "Forwarder is off";
    return el("div", { class: "uplink" }, state(forwarder.state === "unknown" ? "none" : "ng", forwarder.state === "unknown" ? "dash" : "broken", word),
      el("p", {}, forwarder.state === "unknown" ? "The forwarder has not told its state." : "Events wait in capture's own spools until it is back."));
  }
  const link = forwarder.uplink;
  const waiting = forwarder.streams.reduce((sum, stream) => sum + stream.events, 0);
  if (!link) return el("div", { class: "uplink" }, state("none", "dash", forwarder.state));
  const since = link.since ? `since ${format.timeOf(link.since)}` : "";
  const full = forwarder.streams.find((stream) => stream.full);
  return el("div", { class: "uplink" },
    !isHeard ? state("none", "dash", "Not known") : link.connected ? state("ok", "linked", "Online") : state("ng", "broken", "Offline"),
    !isHeard && el("p", {}, "Last heard before the broker went away:"),
    el("p", {}, isHeard ? since.replace("s", "S") : `uplink ${link.connected ? "online" : "offline"} ${since}`),
    el("p", {}, waiting ? `${format.count(waiting)} event${waiting === 1 ? "" : "s"} waiting` : "Nothing is waiting"),
    full && el("p", {}, el("b", {}, "Full: "), full.full),
    link.detail && el("p", { class: "muted" }, link.detail));
}

const state = (kind, drawing, word) => el("div", { class: `uplink-state ${kind}` }, icon(drawing), word);

function table(streams, spools) {
  const heads = ["Stream", "Waiting", "Of its budget", "Oldest", "Stored", "Delivered", "Dropped"];
  return el("table", { class: "streams" },
    el("thead", {}, el("tr", {}, ...heads.map((head) => el("th", { scope: "col" }, head)))),
    el("tbody", {},
      ...streams.map((stream) => el("tr", {}, el("td", {}, stream.name), number(stream.events),
        el("td", { class: "wide" }, meter(stream.bytes, stream.max_bytes)),
        el("td", {}, stream.events ? format.duration(stream.oldest_age_s) : el("span", { class: "zero" }, "–")),
        number(stream.stored), number(stream.delivered), number(stream.dropped, true))),
      ...spools.map((tile) => el("tr", {}, el("td", {}, el("small", {}, "capture "), `${tile.line} / ${tile.station}`),
        number(tile.status.spool?.events), el("td", { class: "wide" }, meter(tile.status.spool?.bytes, tile.status.spool?.max_bytes)),
        el("td", { colspan: 4 }, el("small", {}, captureWords(tile.status)))))));
}

function captureWords(status) {
  if (status.state === "offline") return "capture is not running";
  const told = [["sent", "sent"], ["judged", "judged"], ["not_inspected", "not inspected"], ["skipped", "skipped"]];
  return told.filter(([name]) => typeof status[name] === "number").map(([name, word]) => `${format.count(status[name])} ${word}`).join(" · ");
}

function number(value, isAlert = false) {
  return el("td", { class: value ? (isAlert ? "alert" : "") : "zero" }, format.count(value));
}

function meter(used, budget) {
  if (!budget) return el("span", { class: "zero" }, format.bytes(used));
  const share = Math.min(1, (used ?? 0) / budget);
  const fill = el("b");
  fill.style.width = `${Math.max(share * 100, used ? 1 : 0).toFixed(1)}%`;
  return el("div", { class: `meter ${share > 0.9 ? "full" : share > 0.6 ? "warn" : ""}` }, el("i", { "aria-hidden": "true" }, fill),
    el("span", {}, format.bytes(used ?? 0), el("small", {}, ` / ${format.bytes(budget)}`)));
}
