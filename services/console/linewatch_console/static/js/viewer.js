// SPDX-License-Identifier: Apache-2.0
// A part's picture with its heat map and boxes, drawn here from the event: the picture on disk stays as taken.

import { el, icon, setText } from "./dom.js";

const MOST_ZOOM = 8;
const RAMP = [[0, 246, 189, 74], [0.5, 255, 120, 60], [1, 255, 40, 90]];

/** Shows `show(part, label)`; when parts come faster than pictures load, only the newest is drawn. */
export class Viewer {
  constructor() {
    this.canvas = el("canvas", { role: "img", "aria-label": "no picture yet" });
    this.blankText = el("p", {}, "waiting for the first part");
    this.blank = el("div", { class: "blank" }, icon("picture"), this.blankText);
    this.element = el("div", { class: "stage" }, this.canvas, this.blank);
    this.heat = true;
    this.shown = null;
    this.wanted = null;
    this.isLoading = false;
    this.zoom = { scale: 1, x: 0.5, y: 0.5 }; // the picture's point that lies in the middle
    this.onzoom = null;
    this.listen();
    new ResizeObserver(() => this.draw()).observe(this.element);
  }

  /** Wheel with Ctrl (and a pinch, which comes as that), a double press, and dragging once it is larger than the stage. */
  listen() {
    let from = null;
    this.canvas.addEventListener("wheel", (event) => {
      if (!this.onzoom || !event.ctrlKey) return;
      event.preventDefault();
      this.setZoom(this.zoom.scale * (event.deltaY < 0 ? 1.15 : 1 / 1.15));
    }, { passive: false });
    this.canvas.addEventListener("dblclick", () => this.onzoom && this.setZoom(this.zoom.scale > 1 ? 1 : 2.5));
    this.canvas.addEventListener("pointerdown", (event) => {
      if (!this.onzoom || this.zoom.scale === 1) return;
      this.canvas.setPointerCapture(event.pointerId);
      from = event;
    });
    this.canvas.addEventListener("pointermove", (event) => {
      if (!from || !this.size) return;
      const ratio = window.devicePixelRatio || 1;
      this.setZoom(this.zoom.scale, this.zoom.x - ((event.clientX - from.clientX) * ratio) / this.size.w, this.zoom.y - ((event.clientY - from.clientY) * ratio) / this.size.h);
      from = event;
    });
    for (const end of ["pointerup", "pointercancel"]) this.canvas.addEventListener(end, () => { from = null; });
  }

  zoomIn() { this.setZoom(this.zoom.scale * 1.5); }

  zoomOut() { this.setZoom(this.zoom.scale / 1.5); }

  zoomReset() { this.setZoom(1); }

  setZoom(scale, x = this.zoom.x, y = this.zoom.y) {
    const wanted = Math.max(1, Math.min(MOST_ZOOM, scale));
    const half = 0.5 / wanted;
    const within = (value) => Math.max(half, Math.min(1 - half, value));
    this.zoom = { scale: wanted, x: within(x), y: within(y) };
    this.canvas.classList.toggle("zoomed", wanted > 1);
    this.onzoom?.(wanted);
    this.draw();
  }

  show(part, description) {
    if (this.wanted?.part.event_id === part.event_id) return;
    this.wanted = { part, description };
    if (!this.isLoading) this.load();
  }

  setHeat(isOn) {
    this.heat = isOn;
    this.draw();
  }

  async load() {
    this.isLoading = true;
    while (this.wanted !== this.attempted) {
      const attempt = (this.attempted = this.wanted);
      const frame = attempt.part.frame ? await loaded(attempt.part.frame) : null;
      const isMarked = frame && attempt.part.heatmap && attempt.part.result !== "OK";
      const heat = isMarked ? await loaded(attempt.part.heatmap) : null;
      this.shown = { ...attempt, frame, heat: heat ? tinted(heat) : null };
      this.draw();
    }
    this.isLoading = false;
  }

  draw() {
    if (!this.shown) return;
    const { frame, heat, part, description } = this.shown;
    this.blank.hidden = Boolean(frame);
    setText(this.blankText, part.result === "NOT_INSPECTED" ? "no picture that could be read" : "no picture of this part on this device");
    this.canvas.setAttribute("aria-label", description);
    const ratio = window.devicePixelRatio || 1;
    const width = (this.canvas.width = Math.round(this.element.clientWidth * ratio));
    const height = (this.canvas.height = Math.round(this.element.clientHeight * ratio));
    if (!frame || !width) return;
    const g = this.canvas.getContext("2d");
    const scale = Math.min(width / frame.naturalWidth, height / frame.naturalHeight) * this.zoom.scale;
    const w = frame.naturalWidth * scale, h = frame.naturalHeight * scale;
    this.size = { w, h };
    const left = width / 2 - w * this.zoom.x, top = height / 2 - h * this.zoom.y;
    g.imageSmoothingQuality = "high";
    g.drawImage(frame, left, top, w, h);
    if (heat && this.heat) g.drawImage(heat, left, top, w, h);
    drawRegions(g, part.regions, left, top, scale, ratio);
  }
}

/** Boxes first, then their labels, the surest first; a label that finds no free place is left out. */
function drawRegions(g, regions, left, top, scale, ratio) {
  const boxes = regions.filter((one) => [one.x, one.y, one.width, one.height].every((value) => value !== null)).map((one) => ({
    region: one, x: left + one.x * scale, y: top + one.y * scale, w: one.width * scale, h: one.height * scale,
  }));
  for (const [width, colour] of [[3.5, "#05070acc"], [1.5, "#ffffff"]].map(([width, colour]) => [width * Math.max(1, g.canvas.height / ratio / 400), colour])) {
    g.lineWidth = width * ratio;
    g.strokeStyle = colour;
    for (const { x, y, w, h } of boxes) g.strokeRect(x, y, w, h);
  }
  const size = Math.max(11, g.canvas.height / ratio / 40);
  g.font = `600 ${size * ratio}px ${getComputedStyle(document.body).fontFamily}`;
  g.textBaseline = "middle";
  const taken = [];
  for (const box of boxes.sort((a, b) => (b.region.score ?? 0) - (a.region.score ?? 0))) {
    const text = box.region.score === null ? box.region.label : `${box.region.label} ${box.region.score.toFixed(2)}`;
    const w = g.measureText(text).width + 10 * ratio, h = size * 1.55 * ratio;
    const x = Math.max(0, Math.min(box.x - ratio, g.canvas.width - w));
    const place = [box.y - h, box.y + box.h, box.y].map((y) => ({ x, y, w, h }))
      .find((one) => one.y >= 0 && one.y + h <= g.canvas.height && !taken.some((other) => overlap(one, other)));
    if (!place) continue;
    taken.push(place);
    g.fillStyle = "#ffffff";
    g.fillRect(place.x, place.y, w, h);
    g.fillStyle = "#10161d";
    g.fillText(text, place.x + 5 * ratio, place.y + h / 2);
  }
}

const overlap = (a, b) => a.x < b.x + b.w && b.x < a.x + a.w && a.y < b.y + b.h && b.y < a.y + a.h;

/** The picture at `url`; null when there is none. */
async function loaded(url) {
  const image = new Image();
  image.src = url;
  try {
    await image.decode();
    return image;
  } catch {
    return null;
  }
}

/** A grey heat map as colour that lets the picture through where it says nothing. */
function tinted(image) {
  const canvas = el("canvas", { width: image.naturalWidth, height: image.naturalHeight });
  const g = canvas.getContext("2d");
  g.drawImage(image, 0, 0);
  const pixels = g.getImageData(0, 0, canvas.width, canvas.height);
  for (let at = 0; at < pixels.data.length; at += 4) {
    const value = pixels.data[at] / 255;
    const [r, gg, b] = ramp(value);
    pixels.data.set([r, gg, b, 255 * 0.58 * Math.min(1, Math.max(0, (value - 0.12) / 0.6))], at);
  }
  g.putImageData(pixels, 0, 0);
  return canvas;
}

function ramp(value) {
  const upper = RAMP.findIndex(([stop]) => value <= stop);
  if (upper <= 0) return RAMP[0].slice(1);
  const [from, ...a] = RAMP[upper - 1], [to, ...b] = RAMP[upper];
  return a.map((channel, i) => channel + ((value - from) / (to - from)) * (b[i] - channel));
}
