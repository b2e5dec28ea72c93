// SPDX-License-Identifier: Apache-2.0
// Severity of the last windows of a sensor station, over the bands in which an order awaits approval or is made.

import { el, icon, renew, setText, svg } from "./dom.js";

const WINDOWS = 120;
const TOP = 14, BOTTOM = 94; // per cent of the stage: severity 1 and 0

const yOf = (severity) => BOTTOM - (BOTTOM - TOP) * Math.max(0, Math.min(1, severity));

export class Trend {
  constructor() {
    this.lines = svg("g", {});
    this.ground = svg("g", {});
    const picture = svg("svg", { class: "trend", viewBox: "0 0 100 100", preserveAspectRatio: "none", "aria-hidden": "true" }, this.ground, this.lines);
    this.dot = el("span", { class: "trend-dot", hidden: true });
    this.title = el("span", { class: "trend-title" });
    this.words = el("div", { class: "trend-words" });
    this.blank = el("div", { class: "blank" }, icon("chart"), el("p", {}, "waiting for the first window"));
    this.element = el("div", { class: "stage", role: "img" }, picture, this.dot, this.title,
      this.words, this.blank);
  }

  /** The bands of the policy that holds; in the pilot the automatic one asks as well. */
  showBands({ approval, automatic }, isPilot) {
    renew(this.words, [approval, automatic, isPilot], () => {
      this.ground.replaceChildren(
        svg("rect", { class: "band-automatic", x: 0, width: 100, y: yOf(1), height: yOf(automatic) - yOf(1) }),
        svg("rect", { class: "band-approval", x: 0, width: 100, y: yOf(automatic), height: yOf(approval) - yOf(automatic) }),
        ...[1, automatic, approval, 0].map((at) => svg("line", { class: "rule", x1: 0, x2: 100, y1: yOf(at), y2: yOf(at) })));
      return [label(isPilot ? "awaits approval: pilot" : "makes an order", 1), label("awaits approval", automatic), label("recorded", approval)];
    });
  }

  show(history, isKnown) {
    this.blank.hidden = isKnown;
    const shown = history.slice(-WINDOWS);
    const xOf = (index) => (98.4 * (index + WINDOWS - shown.length)) / (WINDOWS - 1);
    const parts = [];
    let run = [];
    const finish = () => {
      if (run.length > 1) parts.push(
        svg("path", { class: "under", d: `M${run[0][0]} ${BOTTOM}L${run.map((p) => p.join(" ")).join("L")}L${run.at(-1)[0]} ${BOTTOM}Z` }),
        svg("path", { class: "severity", d: `M${run.map((p) => p.join(" ")).join("L")}` }));
      run = [];
    };
    let renewed = 0;
    shown.forEach((point, index) => {
      if (index > 0 && point.unit && shown[index - 1].unit && point.unit !== shown[index - 1].unit) {
        finish();
        renewed += 1;
        const x = xOf(index - 0.5).toFixed(2);
        parts.push(svg("line", { class: "renewed", x1: x, x2: x, y1: yOf(1), y2: yOf(0) }));
      }
      if (point.severity === null) finish(); // not inspected: a gap, not a line across it
      else run.push([xOf(index).toFixed(2), yOf(point.severity).toFixed(2)]);
    });
    finish();
    this.lines.replaceChildren(...parts);
    const last = shown.at(-1);
    this.dot.hidden = !last || last.severity === null;
    if (!this.dot.hidden) {
      this.dot.style.left = `${xOf(shown.length - 1)}%`;
      this.dot.style.top = `${yOf(last.severity)}%`;
    }
    setText(this.title, `Severity, last ${shown.length} windows${renewed ? ` · ${renewed} machine change${renewed > 1 ? "s" : ""}` : ""}`);
    this.element.setAttribute("aria-label", last ? `${this.title.textContent}, now ${last.severity?.toFixed(2) ?? "not known"}` : "no windows yet");
  }
}

function label(text, at) {
  const made = el("span", { class: "trend-label" }, text);
  made.style.top = `${yOf(at)}%`;
  return made;
}
