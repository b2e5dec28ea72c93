// SPDX-License-Identifier: Apache-2.0
// Small charts of our own: drawn at the size that they have on the page, so that their texts stay readable on a phone.

import { el, setText, svg } from "./dom.js";

const MARKS = ["M0 -4.5A4.5 4.5 0 1 1 0 4.5A4.5 4.5 0 1 1 0 -4.5", "M-4 -4H4V4H-4Z", "M0 -5.5L5.5 4H-5.5Z", "M0 -5.5L5 0L0 5.5L-5 0Z"];
export const SERIES = 4;

export const mark = (series, x, y) => svg("path", { class: `mark series-${series + 1}`, d: MARKS[series % SERIES], transform: `translate(${x.toFixed(1)} ${y.toFixed(1)})` });

/** A box that draws itself anew at each width. `draw(width, height, tip)` answers with SVG children; `tip(x, y, text)` gives an element's words on hover. */
export class Chart {
  constructor({ height, label, draw }) {
    this.picture = svg("svg", { role: "img", "aria-label": label });
    this.words = el("div", { class: "tip", hidden: true });
    this.element = el("div", { class: "chart" }, this.picture, this.words);
    this.height = height;
    this.make = draw;
    this.element.style.height = `${height}px`;
    this.spots = [];
    new ResizeObserver(() => this.draw()).observe(this.element);
    this.picture.addEventListener("pointermove", (event) => this.point(event));
    this.picture.addEventListener("pointerleave", () => { this.words.hidden = true; });
  }

  draw() {
    const width = this.element.clientWidth;
    if (!width) return;
    this.spots = [];
    this.picture.setAttribute("viewBox", `0 0 ${width} ${this.height}`);
    const tip = (x, y, text) => this.spots.push({ x, y, text });
    this.picture.replaceChildren(...this.make(width, this.height, tip).flat().filter(Boolean));
  }

  /** Shows the words of the nearest spot. */
  point(event) {
    const box = this.element.getBoundingClientRect();
    const x = event.clientX - box.left, y = event.clientY - box.top;
    const near = this.spots.map((spot) => [Math.hypot(spot.x - x, spot.y - y), spot]).sort((a, b) => a[0] - b[0])[0];
    this.words.hidden = !near || near[0] > 60;
    if (this.words.hidden) return;
    setText(this.words, near[1].text);
    this.words.style.left = `${Math.max(70, Math.min(box.width - 70, near[1].x))}px`;
    this.words.style.top = `${near[1].y - 10}px`;
    this.words.classList.toggle("below", near[1].y < 60);
  }
}

/** Lines and words of a y axis for shares 0..1. */
export function shareAxis({ left, right, yOf, every = 0.25 }) {
  const made = [];
  for (let share = 0; share <= 1.0001; share += every) {
    made.push(svg("line", { class: "grid", x1: left, x2: right, y1: yOf(share), y2: yOf(share) }),
      svg("text", { class: "axis", x: left - 8, y: yOf(share) + 4, "text-anchor": "end" }, `${Math.round(share * 100)} %`));
  }
  return made;
}

export const text = (x, y, words, anchor = "middle") => svg("text", { class: "axis", x, y, "text-anchor": anchor }, words);

/** The same numbers for who reads rather than looks. */
export function table(caption, heads, rows) {
  return el("div", { class: "table-box", tabindex: "0", role: "region", "aria-label": caption }, el("table", { class: "numbers" }, el("caption", { class: "unseen" }, caption),
    el("thead", {}, el("tr", {}, ...heads.map((head) => el("th", { scope: "col" }, head)))),
    el("tbody", {}, ...rows.map((cells) => el("tr", {}, ...cells.map((cell, at) => el(at ? "td" : "th", at ? {} : { scope: "row" }, cell)))))));
}
