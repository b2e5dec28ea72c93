// SPDX-License-Identifier: Apache-2.0
// How right the alarms were, by what technicians found; and whether orders may be created without asking.

import { RETRY_MS, get, isPassing } from "../api.js";
import { Chart, SERIES, mark, shareAxis, table, text } from "../chart.js";
import { el, icon, placed, renew, svg } from "../dom.js";
import { reportEscape } from "../escape.js";
import * as format from "../format.js";
import { decides } from "../store.js";

const BY = [["model", "Model version"], ["line", "Line"], ["failure_mode", "Failure mode"]];
const MONTHS = [3, 6, 12];
const RISKS = [0.05, 0.1, 0.2];
const kept = { by: "model", months: 6, risk: 0.1, isTable: false };

export class Accuracy {
  constructor() {
    this.title = "Accuracy";
    this.body = el("div", { class: "accuracy", "aria-live": "off" });
    this.exit = el("section", { class: "panel exit", "aria-labelledby": "exit-title" });
    this.controls = el("div", { class: "controls" });
    this.since = el("p", { class: "muted" });
    this.element = el("div", { class: "page" }, el("div", { class: "page-head" }, el("h1", {}, "Accuracy"), this.since, this.controls), this.exit, this.body);
    this.reporting = el("button", { type: "button", class: "button quiet", hidden: !decides(), onclick: () => reportEscape(() => this.load()) }, "Report a missed failure");
    this.showControls();
    this.load();
    this.loadExit();
  }

  showControls() {
    const pick = (words, options, now, act) => el("div", { class: "segments", role: "group", "aria-label": words }, ...options.map(([value, word]) =>
      el("button", { type: "button", "aria-pressed": String(value === now), onclick: (event) => { for (const one of event.currentTarget.parentElement.children) one.setAttribute("aria-pressed", String(one === event.currentTarget)); act(value); } }, word)));
    this.controls.replaceChildren(
      pick("By", BY, kept.by, (value) => { kept.by = value; this.load(); }),
      pick("Time", MONTHS.map((months) => [months, `${months} months`]), kept.months, (value) => { kept.months = value; this.load(); }),
      el("button", { type: "button", class: "button quiet toggle", "aria-pressed": String(kept.isTable), onclick: (event) => { kept.isTable = !kept.isTable; event.currentTarget.setAttribute("aria-pressed", String(kept.isTable)); this.show(); } }, "As tables"), this.reporting);
  }

  async load() {
    const asked = this.asked = `/api/accuracy?months=${kept.months}&by=${kept.by}`;
    if (!this.report) renew(this.body, "asking", () => el("p", { class: "loading" }, "Asking the cloud for the outcomes"));
    this.body.classList.toggle("old", Boolean(this.report));
    try {
      const report = await get(asked);
      if (asked === this.asked) { this.report = report; this.refused = null; }
    } catch (error) {
      if (asked === this.asked) this.refused = error;
      this.retry(error, () => this.load());
    }
    this.body.classList.remove("old");
    if (asked === this.asked) this.show();
  }

  /** Without months: a guarantee that holds at every look needs a window that begins on a day that stays. */
  async loadExit() {
    try {
      this.pilot = await get(`/api/pilot-exit?risk=${kept.risk}`);
    } catch (error) {
      this.pilot = { refused: error.message };
      this.retry(error, () => this.loadExit());
    }
    this.showExit();
  }

  update(kind) {
    if (kind === "me" || kind === "snapshot") this.reporting.hidden = !decides();
  }

  retry(refused, ask) {
    if (isPassing(refused) && !this.isClosed) setTimeout(() => { if (!this.isClosed) ask(); }, RETRY_MS);
  }

  close() {
    this.isClosed = true;
  }

  show() {
    if (this.refused) {
      renew(this.body, this.refused.message, () => el("div", { class: "empty" }, icon("clock"), el("b", {}, "The outcomes can't be shown now"), this.refused.message));
      return;
    }
    const report = this.report;
    this.since.textContent = `${format.date(report.first_day)} to ${format.date(report.last_day)}, intervals at ${format.percent(report.confidence)}`;
    renew(this.body, [report, kept.isTable], () => page(report));
  }

  showExit() {
    renew(this.exit, [this.pilot, kept.risk], () => exitCard(this.pilot, (risk) => { kept.risk = risk; this.loadExit(); }));
  }
}

function page(report) {
  const total = report.total;
  if (!total.orders && !total.escapes) return el("div", { class: "empty" }, icon("wrench"), el("b", {}, "No order has ended yet"), "Accuracy is told by what technicians find: close an order with its finding, or let the ERP tell it.");
  return [
    el("dl", { class: "tally big" },
      share("Precision of alarms", total.precision, total.why_not, `${total.confirmed} of ${total.judged} judged orders were confirmed`),
      share("False alarms (overkill)", total.overkill, total.why_not, `${total.no_fault} with no fault found`),
      share("Caught, at most", total.recall_at_most, total.recall_why_not, `${total.escapes} escape${total.escapes === 1 ? "" : "s"} reported`),
      el("div", {}, el("dt", {}, "Ended orders"), el("dd", {}, format.count(total.orders)), el("dd", { class: "muted" }, `${format.count(total.unstated)} without a finding`))),
    el("section", { class: "panel", "aria-labelledby": "trend-title" }, el("div", { class: "panel-head" }, el("h2", { id: "trend-title" }, `Precision by ${report.per ?? "month"}`), legend(seriesOf(report))), kept.isTable ? trendTable(report) : trend(report)),
    el("section", { class: "panel", "aria-labelledby": "groups-title" }, el("h2", { id: "groups-title" }, `By ${format.words(report.by ?? "all").toLowerCase()}`), groups(report)),
    el("section", { class: "panel", "aria-labelledby": "reliability-title" }, el("div", { class: "panel-head" }, el("h2", { id: "reliability-title" }, "Reliability"), el("span", { class: "muted", title: "Expected calibration error" }, typeof report.reliability?.ece === "number" ? `calibration error ${format.score(report.reliability.ece)}` : report.reliability?.why_not)), kept.isTable ? reliabilityTable(report.reliability) : reliability(report.reliability)),
    el("section", { class: "panel", "aria-labelledby": "decisions-title" }, el("h2", { id: "decisions-title" }, "Decisions"), decisions(report.decisions ?? [])),
    report.notes?.length > 0 && el("ul", { class: "notes muted" }, ...report.notes.map((note) => el("li", {}, note)))];
}

function share(word, value, whyNot, text_) {
  return el("div", {}, el("dt", {}, word), el("dd", {}, value ? format.percent(value.value) : "–", value && el("small", {}, ` ${format.percent(value.low)}–${format.percent(value.high)}`)), el("dd", { class: "muted" }, value ? text_ : whyNot ?? "not known"));
}

/** The groups with most judged orders; the table has them all. */
function seriesOf(report) {
  if (!report.groups?.length) return [{ name: null, word: "All" }];
  return [...report.groups].sort((a, b) => b.judged - a.judged).slice(0, SERIES).map((one) => ({ name: one.group, word: one.group ?? "not known" }));
}

const legend = (series) => el("ul", { class: "legend" }, ...series.map((one, index) => el("li", { class: "ellipsis", title: one.word }, svg("svg", { viewBox: "-7 -7 14 14", class: "key", "aria-hidden": "true" }, mark(index, 0, 0)), one.word)));

function trend(report) {
  const series = seriesOf(report);
  const periods = [...new Set(report.trend.map((one) => one.period))].sort();
  const of = (name, period) => report.trend.find((one) => one.group === name && one.period === period);
  return new Chart({ height: 250, label: `Precision by ${report.per}: ${series.map((one) => `${one.word} ${periods.map((period) => `${period} ${format.percent(of(one.name, period)?.precision?.value)}`).join(", ")}`).join("; ")}`, draw: (width, height, tip) => {
    const left = 48, right = width - 14, top = 12, bottom = height - 28;
    const yOf = (value) => bottom - (bottom - top) * value;
    const step = (right - left) / periods.length;
    const xOf = (at, index) => left + step * (at + 0.5) + (index - (series.length - 1) / 2) * Math.min(12, step / (series.length + 1));
    const every = Math.ceil(56 / step);
    return [...shareAxis({ left, right, yOf }), ...periods.map((period, at) => at % every === 0 && text(left + step * (at + 0.5), height - 8, periodWord(period))),
      ...series.flatMap((one, index) => {
        const points = periods.map((period, at) => [xOf(at, index), of(one.name, period)]).filter(([, entry]) => entry?.precision);
        return [svg("polyline", { class: `series series-${index + 1}`, points: points.map(([x, entry]) => `${x.toFixed(1)},${yOf(entry.precision.value).toFixed(1)}`).join(" ") }),
          ...points.flatMap(([x, entry]) => {
            const { value, low, high } = entry.precision;
            tip(x, yOf(value), `${one.word}, ${periodWord(entry.period)}: ${format.percent(value)} (${format.percent(low)}–${format.percent(high)}), ${entry.confirmed} of ${entry.judged}`);
            return [svg("line", { class: `interval series-${index + 1}`, x1: x, x2: x, y1: yOf(low), y2: yOf(high) }), ...[low, high].map((end) => svg("line", { class: `interval series-${index + 1}`, x1: x - 3, x2: x + 3, y1: yOf(end), y2: yOf(end) })), mark(index, x, yOf(value))];
          })];
      })];
  } }).element;
}

const MONTH = new Intl.DateTimeFormat("en-GB", { month: "short", year: "2-digit" });
const periodWord = (period) => (/^\d{4}-\d{2}$/.test(period ?? "") ? MONTH.format(new Date(`${period}-15`)) : period ?? "–");

const cellOf = (share_) => (share_ ? `${format.percent(share_.value)} (${format.percent(share_.low)}–${format.percent(share_.high)})` : "–");

function trendTable(report) {
  return table(`Precision by ${report.per}`, ["Group", "Period", "Precision", "Confirmed", "Other fault", "No fault", "Not stated"], report.trend.filter((one) => one.orders).map((one) =>
    [one.group ?? "All", periodWord(one.period), cellOf(one.precision), `${one.confirmed} of ${one.judged}`, one.other_fault, one.no_fault, one.unstated].map(String)));
}

function groups(report) {
  const all = report.groups?.length ? report.groups : [report.total];
  if (kept.isTable) return table("By group", ["Group", "Orders", "Precision", "Overkill", "Escapes", "Caught, at most"], all.map((one) => [one.group ?? "All", one.orders, cellOf(one.precision), cellOf(one.overkill), one.escapes ?? "–", cellOf(one.recall_at_most)].map(String)));
  return el("ol", { class: "intervals" }, ...all.map((one) => el("li", {}, el("b", { class: "ellipsis", title: one.group }, one.group ?? "All"), intervalBar(one.precision), el("span", { class: "muted" }, one.precision ? `${format.percent(one.precision.value)} of ${one.judged}` : one.why_not ?? "no finding yet"),
    el("span", { class: "muted" }, [`${one.no_fault} overkill`, typeof one.escapes === "number" && `${one.escapes} escape${one.escapes === 1 ? "" : "s"}`].filter(Boolean).join(" · ")))));
}

function intervalBar(share_) {
  const track = el("div", { class: "interval-bar", role: "img", "aria-label": cellOf(share_) });
  if (share_) track.append(placed(el("i"), { left: share_.low, width: share_.high - share_.low }), placed(el("b"), { left: share_.value }));
  return track;
}

function reliability(one) {
  const bins = (one?.bins ?? []).filter((bin) => bin.orders);
  if (!bins.length) return el("p", { class: "muted" }, one?.why_not ?? "No judged order yet.");
  return new Chart({ height: 280, label: `Of orders by their risk, the share confirmed: ${bins.map((bin) => `${format.score(bin.mean_risk)}: ${format.percent(bin.share?.value)}`).join(", ")}`, draw: (width, height, tip) => {
    const side = Math.min(width - 62, height - 44), left = 48, right = left + Math.max(side, width - 62), top = 10, bottom = height - 34;
    const xOf = (risk) => left + (right - left) * risk, yOf = (value) => bottom - (bottom - top) * value;
    const most = Math.max(...bins.map((bin) => bin.orders));
    return [...shareAxis({ left, right, yOf }), ...[0, 0.25, 0.5, 0.75, 1].map((risk) => text(xOf(risk), height - 18, risk.toFixed(2))), text((left + right) / 2, height - 3, "risk when it was raised"),
      svg("line", { class: "ideal", x1: xOf(0), y1: yOf(0), x2: xOf(1), y2: yOf(1) }),
      ...bins.map((bin) => svg("rect", { class: "bin", x: xOf(bin.from) + 1, width: Math.max(1, xOf(bin.to) - xOf(bin.from) - 2), y: bottom - (34 * bin.orders) / most, height: (34 * bin.orders) / most })),
      svg("polyline", { class: "series series-1", points: bins.filter((bin) => bin.share).map((bin) => `${xOf(bin.mean_risk).toFixed(1)},${yOf(bin.share.value).toFixed(1)}`).join(" ") }),
      ...bins.filter((bin) => bin.share).flatMap((bin) => {
        const x = xOf(bin.mean_risk);
        tip(x, yOf(bin.share.value), `risk ${format.score(bin.from)}–${format.score(bin.to)}: ${bin.confirmed} of ${bin.orders} confirmed (${format.percent(bin.share.low)}–${format.percent(bin.share.high)})`);
        return [svg("line", { class: "interval series-1", x1: x, x2: x, y1: yOf(bin.share.low), y2: yOf(bin.share.high) }), mark(0, x, yOf(bin.share.value))];
      })];
  } }).element;
}

function reliabilityTable(one) {
  return table("Reliability", ["Risk", "Orders", "Mean risk", "Confirmed", "Share"], (one?.bins ?? []).filter((bin) => bin.orders).map((bin) => [`${format.score(bin.from)}–${format.score(bin.to)}`, bin.orders, format.score(bin.mean_risk), bin.confirmed, cellOf(bin.share)].map(String)));
}

function decisions(all) {
  if (!all.length) return el("p", { class: "muted" }, "No decision is recorded in this time.");
  return table("Decisions by person", ["Who", "Approved", "Rejected", "Judged", "Confirmed", "Other fault", "No fault"], all.map((one) => [one.by, one.approved, one.rejected, one.judged, one.confirmed, one.other_fault ?? "–", one.no_fault].map(String)));
}

const VERDICTS = { justified: ["ok", "ok", "Automatic creation is justified"], not_enough_outcomes: ["review", "clock", "Not enough outcomes yet"], not_justified: ["ng", "ng", "Not justified"] };

function exitCard(report, choose) {
  const title = el("h2", { id: "exit-title" }, "Pilot exit");
  if (!report) return [title, el("p", { class: "loading" }, "Asking")];
  if (report.refused) return [title, el("p", { class: "muted" }, `Can't be told now: ${report.refused}`)];
  const risks = el("div", { class: "segments", role: "group", "aria-label": "Risk of a wrong order that you accept" }, ...RISKS.map((risk) => el("button", { type: "button", "aria-pressed": String(risk === report.risk), onclick: () => choose(risk) }, format.percent(risk))));
  return [el("div", { class: "panel-head" }, title, el("span", { class: "muted" }, "Wrong orders that you accept"), risks), ...(report.groups ?? []).map((one) => exitGroup(one, report)),
    report.notes?.length > 0 && el("details", {}, el("summary", {}, "What this speaks about"), el("p", { class: "muted" }, report.population), el("ul", { class: "notes muted" }, ...report.notes.map((note) => el("li", {}, note))))];
}

function exitGroup(one, report) {
  const [state, drawing, word] = VERDICTS[one.verdict] ?? ["", "dash", format.words(one.verdict)];
  const orders = one.orders ?? {};
  return el("div", { class: `exit-group ${state}` },
    el("div", { class: "exit-verdict" }, icon(drawing), el("div", {}, el("b", {}, word), el("span", {}, one.group === "all" ? "" : one.group))),
    el("div", { class: "exit-number" }, el("b", {}, one.threshold === null || one.threshold === undefined ? "–" : `> ${format.score(one.threshold)}`), el("span", {}, `risk threshold, now > ${format.score(report.present?.threshold)}`)),
    el("div", { class: "exit-text" }, el("p", {}, one.sentence), el("p", { class: "muted" }, `${format.count(orders.judged)} judged: ${format.count(orders.confirmed)} confirmed, ${format.count(orders.other_fault)} other fault, ${format.count(orders.no_fault)} no fault; ${format.count(orders.rejected)} rejected, counted as wrong. `,
      one.confirmed_needed > 0 && `${format.count(one.confirmed_needed)} more confirmed orders would do.`), one.drift?.is_doubtful && el("p", { class: "notice warn" }, icon("review"), `The two halves of this time differ (p ${format.score(one.drift.p)}): look at what changed before you trust the sum.`)),
    one.candidates?.some((try_) => try_.orders) && el("ol", { class: "candidates", "aria-label": "Thresholds tried, strictest first" }, ...one.candidates.filter((try_) => try_.orders || try_.is_present).map((try_) => el("li", { class: try_.is_certified ? "ok" : "", title: try_.orders ? `${try_.wrong} of ${try_.orders} wrong, at most ${format.percent(try_.upper)} at ${format.percent(report.confidence)}` : null },
      icon(try_.is_certified ? "ok" : "none"), el("b", {}, format.score(try_.threshold)), el("span", {}, try_.orders ? `≤ ${format.percent(try_.upper, 1)} of ${try_.orders}` : "no orders yet"), try_.is_present && el("span", { class: "chip plain" }, "now")))));
}
