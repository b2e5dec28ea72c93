// SPDX-License-Identifier: Apache-2.0
// One station on the wall.

import { el, icon, placed, setText } from "./dom.js";
import * as format from "./format.js";
import { Trend } from "./trend.js";
import { Viewer } from "./viewer.js";

export const VERDICTS = {
  OK: { state: "ok", word: "OK" },
  NG: { state: "ng", word: "NG" },
  REVIEW: { state: "review", word: "Review" },
  NOT_INSPECTED: { state: "none", word: "Not inspected" },
};
const COUNTS = [["OK", "OK"], ["NG", "NG"], ["REVIEW", "Review"], ["NOT_INSPECTED", "Not insp."]];
const SENSOR_THRESHOLDS = { review: 0.5, ng: 0.8 };
const STRIP = 60;
const CAPTURE_CHIPS = { running: "ok", offline: "ng", stopped: "review" };

export class Tile {
  constructor(tile) {
    this.kind = tile.kind;
    this.history = [];
    this.stage = tile.kind === "sensor" ? new Trend() : new Viewer();
    this.title = el("h3", {}, el("span", {}, `${tile.line} / `), tile.station);
    this.capture = el("span", { class: "chip" });
    this.model = el("span", { class: "model" });
    this.staleMark = el("span", { class: "chip stale-mark", hidden: true });
    this.stage.element.append(this.staleMark);
    this.word = el("div", { class: "word" });
    this.label = el("b");
    this.mode = el("small");
    this.part = el("span");
    this.number = el("b");
    this.numberName = el("span");
    this.bars = el("div", { class: "bars" });
    this.figures = {};
    this.strip = el("div", { class: "strip", role: "img" });
    this.element = el("article", { class: `tile ${tile.kind}`, "aria-label": `${tile.line}, ${tile.station}` },
      el("header", { class: "tile-head" }, this.title, this.capture, this.model),
      this.stage.element,
      el("div", { class: "said" }, this.word, el("div", { class: "what" }, el("p", {}, this.label, this.mode), this.part),
        el("div", { class: "number" }, this.number, this.numberName)),
      this.bars,
      el("dl", { class: "figures" }, this.figure("age", "Age"), this.figure("rate", "Parts/min"), this.figure("latency", "Latency", "", "p50 of the last 100 parts, from taking the part to its verdict"),
        ...COUNTS.map(([name, word]) => this.figure(name, word, VERDICTS[name].state))),
      this.strip);
  }

  figure(name, word, state = "", title = "") {
    this.figures[name] = el("dd");
    return el("div", { class: state ? `count ${state}` : "", title: title || null }, el("dt", {}, state && icon(state), word), this.figures[name]);
  }

  update(tile, thresholds) {
    this.history = tile.history;
    this.last = tile.last;
    this.showCapture(tile.status, tile.counts);
    setText(this.figures.rate, format.rate(tile.rate_per_minute));
    setText(this.figures.latency, format.milliseconds(tile.latency_p50_ms));
    for (const [name] of COUNTS) {
      setText(this.figures[name], format.shortCount(tile.counts[name]));
      this.figures[name].parentElement.title = `${VERDICTS[name].word}: ${format.count(tile.counts[name])}`;
    }
    this.showStrip();
    if (this.kind === "sensor") this.stage.show(this.history, Boolean(tile.last));
    if (tile.last) this.showPart(tile.last, thresholds);
    else this.showNothing();
  }

  showPart(part, thresholds) {
    const verdict = VERDICTS[part.result];
    this.element.classList.remove("ok", "ng", "review", "none");
    this.element.classList.add(verdict.state);
    if (this.state !== part.result) this.word.replaceChildren(icon(verdict.state), verdict.word);
    this.state = part.result;
    const isJudged = part.result !== "NOT_INSPECTED";
    setText(this.label, isJudged ? part.label || "no label" : format.words(part.reason));
    setText(this.mode, isJudged ? part.failure_mode : "");
    setText(this.part, isJudged ? part.part_id : `${part.part_id} · ${part.message}`);
    this.part.title = this.part.textContent;
    setText(this.number, format.score(part.score));
    setText(this.numberName, isJudged ? (this.kind === "sensor" ? "severity" : "score") : "");
    this.number.hidden = !isJudged;
    setText(this.model, part.model ? `${part.model.name} ${part.model.version} ${part.model.variant}` : this.model.textContent);
    if (part.model) this.model.title = `${part.model.digest} · ${part.model.execution_provider}`;
    if (this.kind === "sensor") this.bars.replaceChildren(...timeToFailureBar(part.time_to_failure));
    else this.bars.replaceChildren(...scoreBar(part.score, thresholds));
    if (this.kind === "camera") {
      const places = part.regions.length ? `, ${part.regions.length} marked place${part.regions.length > 1 ? "s" : ""}` : "";
      this.stage.show(part, `${part.part_id}: ${verdict.word}${places}`);
    }
  }

  showNothing() {
    this.word.replaceChildren(icon("clock"), "No part yet");
    setText(this.label, "");
    this.bars.replaceChildren(...scoreBar(null, null));
  }

  showCapture(status, counts) {
    const state = status?.state ?? "no status";
    this.capture.className = `chip ${CAPTURE_CHIPS[state] ?? ""}`;
    setText(this.capture, state);
    const aside = [];
    if (status?.detail) aside.push(status.detail);
    if (counts.skipped) aside.push(`${format.count(counts.skipped)} skipped`);
    if (counts.dropped) aside.push(`${format.count(counts.dropped)} dropped`);
    this.capture.title = aside.join(" · ");
  }

  showStrip() {
    const shown = this.history.slice(-STRIP);
    const bars = shown.map((point) => el("i", { class: VERDICTS[point.result].state, title: `${point.part_id}: ${VERDICTS[point.result].word}` }));
    const rest = Array.from({ length: STRIP - shown.length }, () => el("i"));
    this.strip.replaceChildren(...rest, ...bars);
    const told = COUNTS.map(([name, word]) => [shown.filter((point) => point.result === name).length, word]).filter(([n]) => n);
    this.strip.setAttribute("aria-label", `Last ${shown.length} parts: ${told.map(([n, word]) => `${n} ${word}`).join(", ") || "none"}`);
  }

  /** Called four times a second: the age is by the part's own time, not by when a message came. */
  tick(now, staleAfter) {
    if (!this.last) return;
    const age = Math.max(0, now - this.last.taken_at);
    const isStale = age > staleAfter;
    setText(this.figures.age, format.duration(age));
    this.element.classList.toggle("stale", isStale);
    this.staleMark.hidden = !isStale;
    if (isStale) {
      const text = `stale: ${format.duration(age)} old`;
      if (this.staleMark.textContent !== text) this.staleMark.replaceChildren(icon("clock"), text);
    }
  }
}

function scoreBar(score, thresholds) {
  const track = el("div", { class: "track" });
  const scale = el("div", { class: "scale" }, el("span", { class: "first" }, "0"), el("span", { class: "last" }, "1"));
  if (score !== null) track.append(placed(el("span", { class: "fill" }), { width: score }));
  for (const [name, word] of [["review", "review"], ["ng", "NG"]]) {
    if (typeof thresholds?.[name] !== "number") continue;
    track.append(placed(el("span", { class: "tick" }), { left: thresholds[name] }));
    scale.append(placed(el("span", {}, `${word} ${thresholds[name].toFixed(2)}`), { left: thresholds[name] }));
  }
  return [track, scale];
}

export function timeToFailureBar(interval) {
  const horizon = interval?.horizon || 125;
  const at = (value) => Math.max(0, Math.min(1, value / horizon));
  const track = el("div", { class: interval?.beyond_horizon ? "track beyond" : "track" });
  if (interval && !interval.beyond_horizon && interval.p50 !== null) {
    const from = at(interval.p10 ?? interval.p50), to = at(interval.p90 ?? interval.p50);
    track.append(placed(el("span", { class: "span" }), { left: from, width: to - from }), placed(el("span", { class: "middle" }), { left: at(interval.p50) }));
  }
  return [track, el("div", { class: "scale ends" },
    el("span", { class: "first" }, el("b", {}, format.timeToFailure(interval)), interval?.beyond_horizon ? " to failure" : " to failure, p10–p90"),
    el("span", { class: "last" }, `${format.count(horizon)} ${interval?.unit || "cycle"}s`))];
}

/** Thresholds of the model that judged, as the inference service tells them. */
export function thresholdsOf(tile, models) {
  if (tile.kind === "sensor") return SENSOR_THRESHOLDS;
  const model = tile.last?.model;
  return models.find((one) => model && one.name === model.name && one.version === model.version)?.thresholds ?? null;
}
