// SPDX-License-Identifier: Apache-2.0
// The evidence of an order: its frames, each under its own heat map, near enough to see; windows as small curves.

import { el, icon, svg } from "./dom.js";
import * as format from "./format.js";
import { Viewer } from "./viewer.js";

const MOST = 8;
const MOST_CHANNELS = 24;
const LONGEST_WINDOW = 2000;

/** The panel's content; `viewer` of the frame that is shown, null where there is none. */
export function evidencePanel(order) {
  const files = order.evidence ?? [];
  const frames = files.filter((one) => one.kind === "frame").slice(-MOST);
  const windows = files.filter((one) => one.kind === "window").slice(-MOST);
  if (frames.length) return framePanel(order, files, frames);
  const left = leftOut(order);
  const title = el("h2", { id: "evidence-title" }, "Evidence");
  if (windows.length) return { content: [el("div", { class: "panel-head" }, title, el("span", { class: "muted" }, `the last sensor window of ${windows.length}`)), windowPanel(windows.at(-1)), left], viewer: null, toggleHeat: null };
  return { content: [title, el("div", { class: "empty" }, icon("picture"), "The order names no evidence.")], viewer: null, toggleHeat: null };
}

/** How many files of its parts the order does not name, why, and where they are; null where it names all. */
export function leftOut(order) {
  const count = order.evidence_left_out;
  if (!count) return null;
  return el("p", { class: "notice left-out" }, icon("review"), el("span", {}, el("b", {}, `${format.count(count)} more file${count === 1 ? "" : "s"} of these parts ${count === 1 ? "is" : "are"} not shown`),
    `: the parts have more pictures or windows than one order can name. It names at least the first of each part, then the newest. The others stay on the device's disk as long as its budget lasts; this order keeps none of them.`));
}

function framePanel(order, files, frames) {
  const viewer = new Viewer();
  const all = files.filter((one) => one.kind === "frame").length;
  const caption = el("p", { class: "muted ellipsis" });
  const heat = el("button", { type: "button", class: "button quiet toggle", "aria-pressed": "true", title: "Heat map (h)", onclick: toggleHeat }, "Heat map");
  const level = el("output", { class: "zoom-level" }, "100 %");
  viewer.onzoom = (scale) => { level.textContent = format.percent(scale); };
  const thumbs = frames.map((one, index) => el("button", { type: "button", class: "thumb-button", "aria-label": `Frame ${index + 1} of ${frames.length}`, onclick: () => choose(index) },
    one.url ? el("img", { class: "thumb", src: one.url, alt: "", loading: "lazy", onerror: (event) => event.target.replaceWith(icon("picture")) }) : icon("picture")));

  function choose(index) {
    const one = frames[index];
    // A heat map has its frame's name up to the ending.
    const stem = one.path.replace(/\.[a-z]+$/, "");
    const map = files.find((other) => other.kind === "heatmap" && other.path.startsWith(stem));
    viewer.show({ event_id: one.path || String(index), frame: one.url, heatmap: map?.url ?? "", regions: [], result: "NG" }, `Frame ${index + 1} of ${frames.length} of the evidence${map ? ", with its heat map" : ""}`);
    thumbs.forEach((thumb, at) => thumb.setAttribute("aria-pressed", String(at === index)));
    caption.textContent = `${one.path.split("/").at(-1) || "frame"}${map ? "" : " · no heat map"}`;
    caption.title = [one.path, one.digest].filter(Boolean).join(" · ");
    heat.disabled = !map;
  }
  function toggleHeat() {
    viewer.setHeat(!viewer.heat);
    heat.setAttribute("aria-pressed", String(viewer.heat));
  }
  choose(frames.length - 1);
  viewer.blankText.textContent = "loading the frame";
  const zoom = (drawing, words, act) => el("button", { type: "button", class: "button icon-only", "aria-label": words, title: words, onclick: act }, icon(drawing));
  return { viewer, toggleHeat, content: [
    el("div", { class: "panel-head" }, el("h2", { id: "evidence-title" }, "Evidence"), caption, heat,
      el("span", { class: "zoom" }, zoom("minus", "Zoom out (−)", () => viewer.zoomOut()), level, zoom("plus", "Zoom in (+)", () => viewer.zoomIn()), zoom("whole", "Whole picture (0)", () => viewer.zoomReset()))),
    el("div", { class: "evidence-stage" }, viewer.element),
    frames.length > 1 && el("div", { class: "thumbs" }, ...thumbs), all > frames.length && el("p", { class: "muted" }, `The newest ${frames.length} of ${all} pictures; the whole timeline has one of each part.`), leftOut(order)] };
}

/** Each channel of a sensor window as a small curve of its own; the file stays one press away. */
function windowPanel(file) {
  const box = el("div", { class: "window" });
  const blank = (text) => box.replaceChildren(el("div", { class: "empty" }, icon("chart"), text));
  if (!file.url) {
    blank("The sensor window is not on this device.");
    return box;
  }
  box.append(el("p", { class: "loading" }, "Reading the sensor window"));
  fetch(file.url).then((answer) => (answer.ok ? answer.text() : Promise.reject(answer))).then((text) => {
    const channels = channelsOf(text);
    if (!channels.length) return blank("The sensor window has no numbers.");
    const moving = channels.filter((one) => one.high > one.low && one.name !== "cycle");
    box.replaceChildren(el("div", { class: "channels" }, ...moving.slice(0, MOST_CHANNELS).map(curve)),
      el("p", { class: "muted" }, `${channels[0].values.length} records, oldest first. ${moving.length} of ${channels.length} channels move. `, el("a", { href: file.url, download: "" }, "Window as CSV")));
    return null;
  }).catch(() => blank("The sensor window is no longer on this device."));
  return box;
}

function channelsOf(text) {
  const [names, ...rows] = text.trim().split(/\r?\n/).slice(0, LONGEST_WINDOW).map((line) => line.split(","));
  return names.map((name, at) => {
    const values = rows.map((row) => Number(row[at])).filter(Number.isFinite);
    return { name, values, low: Math.min(...values), high: Math.max(...values) };
  }).filter((one) => one.values.length > 1);
}

function curve({ name, values, low, high }) {
  const points = values.map((value, index) => `${((100 * index) / (values.length - 1)).toFixed(1)},${(36 - (32 * (value - low)) / (high - low)).toFixed(1)}`);
  const short = (value) => (Math.abs(value) >= 1000 ? format.count(value) : String(Number(value.toPrecision(4))));
  return el("figure", { class: "channel" }, el("figcaption", {}, el("b", { title: name }, name), el("span", {}, short(values.at(-1)))),
    svg("svg", { viewBox: "0 0 100 40", preserveAspectRatio: "none", role: "img", "aria-label": `${name}: from ${short(low)} to ${short(high)}, last ${short(values.at(-1))}` }, svg("polyline", { points: points.join(" ") })));
}
