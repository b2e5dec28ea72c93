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
  const since = [link.for_s ? `for ${format.duration(link.for_s)}` : "", link.since ? `since ${format.timeOf(link.since)}` : ""].filter(Boolean).join(", ");
  const full = forwarder.streams.find((stream) => stream.full);
  return el("div", { class: "uplink" },
    !isHeard ? state("none", "dash", "Not known") : link.connected ? state("ok", "linked", "Online") : state("ng", "broken", "Offline"),
    !isHeard && el("p", {}, "Last heard before the broker went away:"),
    el("p", {}, isHeard ? since.charAt(0).toUpperCase() + since.slice(1) : `uplink ${link.connected ? "online" : "offline"} ${since}`),
    el("p", {}, waiting ? `${format.count(waiting)} event${waiting === 1 ? "" : "s"} waiting` : "Nothing is waiting"),
    waiting > 0 && line(drainWords(forwarder.drain)),
    alarm("Full: ", full?.full),
    alarm("Streams can't be asked: ", forwarder.unavailable),
    forwarder.moving && alarm("Moving to the other streams: ", `${format.count(forwarder.moving.events)} events${forwarder.moving.reason ? `, ${forwarder.moving.reason}` : ""}`),
    forwarder.handed_over > 0 && line(`${format.count(forwarder.handed_over)} handed over, kept until they are safe`, "muted"),
    alarm("Same client id: ", forwarder.twin),
    certificate(link.certificate_days),
    deadLetters(forwarder.dead_letters),
    line(evidenceWords(forwarder.evidence)),
    line(link.detail, "muted"));
}

const line = (text, kind = "") => (text ? el("p", { class: kind }, text) : null);

const alarm = (word, text) => (text ? el("p", {}, el("b", {}, word), text) : null);

/** What becomes of the backlog; says so where it is not known. */
function drainWords(drain) {
  if (!drain) return "";
  const at = typeof drain.rate_per_s === "number" ? `${format.rate(drain.rate_per_s)}/s` : "";
  const takes = typeof drain.seconds === "number" ? `about ${format.duration(drain.seconds)}` : "";
  if (drain.state === "draining" && takes) return `Gone in ${takes}, at ${at}`;
  if (drain.state === "growing") return `Grows: more comes than the cloud takes, ${at}`;
  if (drain.state === "stopped") return takes ? `Once online, gone in ${takes} at the last ${at}` : "How long it takes once online is not known yet";
  return drain.state === "unknown" ? "How long it takes is not known yet" : "";
}

function certificate(days) {
  if (typeof days !== "number" || days > 30) return null;
  return alarm("Certificate: ", days > 0 ? `ends in ${days < 2 ? format.duration(days * 86400) : `${Math.floor(days)} days`}` : "has ended");
}

function deadLetters(letters) {
  if (!letters?.count) return null;
  const many = letters.is_more ? "More than " : "";
  return el("div", { class: "aside" },
    el("p", {}, el("b", {}, `${many}${format.count(letters.count)} dead letter${letters.count === 1 ? "" : "s"}`), letters.count > 1 ? ", the newest:" : ":"),
    ...letters.newest.map((letter) => el("p", { class: "muted" }, `${letter.number} ${letter.stream}: ${letter.reason}`)));
}

function evidenceWords(evidence) {
  if (!evidence || evidence.state === "off" || evidence.state === "idle") return "";
  const waits = `${format.count(evidence.waiting_files)} evidence files, ${format.bytes(evidence.waiting_bytes)}`;
  return `${waits}: ${evidence.trouble || evidence.why || evidence.state}`;
}

const state = (kind, drawing, word) => el("div", { class: `uplink-state ${kind}` }, icon(drawing), word);

function table(streams, spools) {
  const heads = ["Stream", "Waiting", "Of its budget", "Holds", "Oldest", "Stored", "Delivered", "Lost"];
  return el("table", { class: "streams" },
    el("thead", {}, el("tr", {}, ...heads.map((head) => el("th", { scope: "col" }, head)))),
    el("tbody", {},
      ...streams.map((stream) => el("tr", {}, el("td", {}, stream.name), number(stream.events),
        el("td", { class: "wide" }, meter(stream.bytes, stream.max_bytes)), holds(stream),
        el("td", {}, stream.events ? format.duration(stream.oldest_age_s) : el("span", { class: "zero" }, "–")),
        number(stream.stored), number(stream.delivered), lost(stream))),
      ...spools.map((tile) => el("tr", {}, el("td", {}, el("small", {}, "capture "), `${tile.line} / ${tile.station}`),
        number(tile.status.spool?.events), el("td", { class: "wide" }, meter(tile.status.spool?.bytes, tile.status.spool?.max_bytes)),
        el("td", { colspan: 5 }, el("small", {}, captureWords(tile.status)))))));
}

/** How long an outage the stream holds at the present rate, whichever of size and age ends it. */
function holds(stream) {
  if (typeof stream.retention_s !== "number") return el("td", { class: "zero", title: "not known until events come" }, "–");
  const words = { bytes: "its bytes", age: "its age", file: "the file of all streams" };
  return el("td", { title: `limited by ${words[stream.retention_limit] ?? stream.retention_limit}` },
    format.duration(stream.retention_s), el("small", { class: "below" }, ` at ${format.rate(stream.rate_per_s)}/s`));
}

function lost(stream) {
  const reasons = Object.entries(stream.dropped_by ?? {}).map(([reason, count]) => `${format.count(count)} ${reason}`).join(", ");
  return el("td", { class: stream.dropped ? "alert" : "zero", title: reasons || null }, format.count(stream.dropped),
    stream.dropped && reasons ? el("small", { class: "below" }, ` ${reasons}`) : null);
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
