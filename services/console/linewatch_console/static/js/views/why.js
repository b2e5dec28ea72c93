// SPDX-License-Identifier: Apache-2.0
// Why an order exists: one timeline from the parts over model, rule and decision to each word with the ERP, and whether
// the records still are what was written. Prints on paper as it stands.

import { RETRY_MS, get, isPassing } from "../api.js";
import { el, facts, icon, renew } from "../dom.js";
import { leftOut } from "../evidence.js";
import * as format from "../format.js";
import { assetOf, chip, findingChip } from "../statuses.js";
import { orderOf } from "../store.js";
import { when } from "../times.js";

/** What an entry is about, by its first word. */
const KINDS = [
  [/^(opened|escalat|before_records|asked)/, "rule", "Policy"], [/^(approve|confirm|reject|expire|decid)/, "person", "Decision"], [/^(merge|absorb)/, "merge", "Decision"],
  [/^(held|hold|release)/, "pause", "Hold"], [/^(tried|created|answered|parked|lease|note|failed|rest)/, "send", "ERP"], [/^(shadow)/, "device", "Device shadow"],
  [/^(announce|remind)/, "audit", "Announcement"], [/^(close|correct|outcome|finding)/, "wrench", "Outcome"],
];
const kindOf = (what) => KINDS.find(([pattern]) => pattern.test(what)) ?? [null, "dash", "Record"];

export class Why {
  constructor(reference) {
    this.reference = reference;
    this.title = `Why ${reference}`;
    this.body = el("div", { class: "why" });
    this.element = el("div", { class: "page" },
      el("nav", { class: "crumbs", "aria-label": "Orders" }, el("a", { href: `#/orders/${reference}`, title: "Back to the order (u)" }, icon("back"), "The order"), el("span", { class: "mono ellipsis" }, reference),
        el("button", { type: "button", class: "button quiet", onclick: () => window.print() }, "Print")), this.body);
    this.keys = { u: () => { location.hash = `#/orders/${reference}`; }, a: null, r: null, m: null, c: null };
    this.wanted = new AbortController();
    this.load();
  }

  async load() {
    clearTimeout(this.again);
    if (!this.content && !this.refused) renew(this.body, "asking", () => el("p", { class: "loading" }, "Asking the cloud for the records"));
    this.asked = orderOf(this.reference)?.head;
    this.isLoading = true;
    try {
      this.content = await get(`/api/work-orders/${this.reference}/why`, this.wanted.signal);
      // The list has the newest orders only.
      if (!orderOf(this.reference)) this.older = await get(`/api/work-orders/${this.reference}`, this.wanted.signal);
      this.refused = null;
    } catch (error) {
      if (error.name === "AbortError") return;
      this.refused = error;
    }
    this.isLoading = false;
    if (isPassing(this.refused)) this.again = setTimeout(() => this.load(), RETRY_MS);
    this.show();
  }

  update(kind) {
    if (kind !== "orders" && kind !== "snapshot") return;
    const head = orderOf(this.reference)?.head;
    if (!this.isLoading && head && this.asked && head !== this.asked) this.load();
    else if (this.content) this.show();
  }

  show() {
    if (this.refused) {
      renew(this.body, this.refused.message, () => el("div", { class: "empty" }, icon("clock"), el("b", {}, this.refused.status === 404 ? "There is no such work order" : "The records can't be shown now"), el("p", {}, this.refused.message),
        el("a", { class: "button", href: "#/orders" }, "All orders")));
      return;
    }
    const order = orderOf(this.reference) ?? this.older;
    renew(this.body, [this.content, order?.status, order?.evidence_left_out], () => page(this.content, order, this.reference));
  }

  close() {
    clearTimeout(this.again);
    this.wanted.abort();
  }
}

function page(why, order, reference) {
  const fault = why.fault;
  return [
    el("header", { class: "why-head" },
      el("div", {}, el("p", { class: "eyebrow" }, "Why does this work order exist?"), el("h1", {}, order ? `${format.failure(order)}: ${assetOf(order)}` : reference),
        order && el("p", { class: "order-strip" }, chip(order), findingChip(order.finding), order.erp_id && el("span", { class: "mono chip plain" }, order.erp_id), el("span", { class: "strip-fact" }, "Raised ", when(order.created_at)))),
      badge(why)),
    el("ol", { class: "timeline" }, ...parts(why.parts ?? [], order), ...model(why.parts ?? []), ...policy(why.policy), ...(why.entries ?? []).map((entry) => entryOf(entry, fault, why)), ...erp(why.erp, why.entries ?? [])),
    el("footer", { class: "why-foot" }, facts([["Head of the chain", why.head && el("span", { class: "mono break" }, why.head)], ["Records", format.count(isCovered(why) ? (why.entries?.length ?? 0) + (why.left_out ?? 0) : 0)], ["Not checked", (why.not_checked ?? []).map((one) => (typeof one === "string" ? one : one.why)).join("; ")], ["Left out here", why.left_out ? `${format.count(why.left_out)} records in the middle; the command shows them` : null], ["Checked with", el("code", {}, `linewatch verify ENVIRONMENT ${reference}`)]], "facts one")),
  ];
}

/** Whether the fault is in the order's own chain, and not in the policy's or a model's. */
const isOwn = (why) => !why.verified && typeof why.fault?.number === "number" && [undefined, why.reference].includes(why.fault.where);

/** Orders of before 0.3 have a history that no record covers, until they change: nothing of it can be checked, and nothing is wrong. */
const isCovered = (why) => why.verified || Boolean(why.fault) || (why.entries ?? []).some((entry) => entry.digest);

function badge(why) {
  if (!isCovered(why)) return el("div", { class: "verdict-badge none" }, icon("none"), el("div", {}, el("b", {}, "No records cover it"), el("span", {}, "it is of a release before records were kept; its history is shown as it was told")));
  if (why.verified) return el("div", { class: "verdict-badge ok" }, icon("shield"), el("div", {}, el("b", {}, "Verified"), el("span", {}, `${format.count((why.entries?.length ?? 0) + (why.left_out ?? 0))} records, each holds the one before`)));
  const at = isOwn(why) ? why.fault?.number : null;
  return el("div", { class: "verdict-badge ng", role: "alert" }, icon("tampered"), el("div", {}, el("b", {}, typeof at === "number" ? `Not verified: record ${at} is faulty` : "Not verified"), el("span", {}, why.fault?.why ?? "the records do not hold together"),
    why.faults?.length > 1 && el("span", {}, ` and ${why.faults.length - 1} more`)));
}

const step = (drawing, kind, title, at, ...content) => el("li", { class: `step ${kind}` }, el("span", { class: "step-mark" }, icon(drawing)),
  el("div", { class: "step-body" }, el("div", { class: "step-head" }, title, at && when(at)), ...content));

function parts(all, order) {
  return all.length ? [step("picture", "", el("h2", {}, `${all.length} part${all.length === 1 ? "" : "s"} spoke`), all.at(-1).taken_at, el("ol", { class: "why-parts" }, ...all.map(part)), order && leftOut(order))] : [];
}

function part(one) {
  const frame = (one.evidence ?? []).find((file) => file.kind === "frame");
  const missing = () => el("span", { class: "thumb missing" }, icon((one.evidence ?? []).some((file) => file.kind === "window") ? "chart" : "picture"));
  const url = frame && (frame.url ?? (frame.path ? `/evidence/${frame.path}` : ""));
  return el("li", {}, url ? el("img", { class: "thumb", src: url, alt: "frame", loading: "lazy", onerror: (event) => event.target.replaceWith(missing()) }) : missing(),
    el("div", {}, el("p", {}, el("b", {}, one.result ?? "–"), ` ${one.label ?? ""}`), el("p", { class: "muted" }, `score ${format.score(one.score ?? one.severity)} · risk ${format.score(one.risk)}`), one.taken_at && el("p", { class: "muted" }, format.timeOf(one.taken_at, true), one.is_time_known === false && ", by a clock that was not synchronised"),
      el("details", {}, el("summary", {}, "Digests"), facts([["Event", el("span", { class: "mono break" }, one.event_id)], ...(one.evidence ?? []).map((file) => [file.kind, el("span", { class: "mono break" }, file.digest || file.path)])], "facts one"))));
}

function model(all) {
  const models = [...new Map(all.filter((one) => one.model?.name).map((one) => [one.model.digest ?? one.model.version, one.model])).values()];
  return models.map((one) => step("chart", "", el("h2", {}, `Model ${one.name} ${one.version}`), null, facts([["Model digest", el("span", { class: "mono break" }, one.digest || "not told")],
    ["Training data digest", el("span", { class: "mono break" }, one.training_data_digest || "not known: this model was loaded before that was recorded")]], "facts one")));
}

function policy(one) {
  if (!one?.version) return [];
  return [step("rule", one.is_known === false ? "warn" : "", el("h2", {}, `Policy ${one.version}`), null, facts([["Policy digest", el("span", { class: "mono break" }, one.digest)]], "facts one"),
    one.is_known === false && el("p", { class: "notice warn" }, icon("review"), "The cloud keeps no policy of that version and digest."), raw("The policy's rules", one.document))];
}

function entryOf(entry, fault, why) {
  const [, drawing, kind] = kindOf(entry.what);
  const isFaulty = isOwn(why) && entry.number === fault.number;
  const isAfter = isOwn(why) && entry.number > fault.number;
  return step(isFaulty ? "tampered" : drawing, isFaulty ? "faulty" : isAfter ? "unsure" : "", el("h2", {}, el("span", { class: "step-kind" }, kind), format.words(entry.what), entry.by ? el("span", { class: "by" }, ` by ${entry.by}`) : null), entry.at,
    isFaulty && el("p", { class: "notice bad", "data-faulty": entry.number }, icon("tampered"), el("span", {}, el("b", {}, `Record ${entry.number} is not what was written. `), fault.why)),
    isAfter && el("p", { class: "muted" }, "Follows a faulty record: not vouched for."),
    entry.text && entry.text !== `${entry.what} by ${entry.by}` && el("p", {}, entry.text), entry.detail?.audit && facts([["Entry of the console's audit log", el("span", { class: "mono break" }, entry.detail.audit)]], "facts one"), ...callsOf(entry), typeof entry.number === "number" && raw(`Record ${entry.number}`, entry));
}

/** Each attempt at the ERP, from the entry that recorded it. */
function callsOf(entry) {
  const calls = entry.detail?.calls;
  return Array.isArray(calls) && calls.length ? [callTable(calls)] : [];
}

function callTable(calls) {
  return el("div", { class: "table-box", tabindex: "0", role: "region", "aria-label": "Calls to the ERP" }, el("table", { class: "numbers calls" }, el("thead", {}, el("tr", {}, ...["Call", "Answer", "Time", "What it said"].map((word) => el("th", { scope: "col" }, word)))),
    el("tbody", {}, ...calls.map((call) => el("tr", {}, el("td", { class: "mono path-cell" }, [call.method, call.path].filter(Boolean).join(" ")), el("td", {}, outcome(call)),
      el("td", {}, format.milliseconds(call.ms)), el("td", { class: "mono said-cell", title: call.answer || null }, call.answer || "–"))))));
}

/** The HTTP status, or why none came. */
function outcome(call) {
  const state = /^2\d\d$/.test(call.outcome) ? "ok" : "ng";
  return el("span", { class: `chip ${state}` }, icon(state), call.outcome || "not told");
}

/** The ERP's own state, and calls that no entry holds. */
function erp(one, entries) {
  if (!one?.id && !one?.calls?.length) return [];
  const told = entries.some((entry) => Array.isArray(entry.detail?.calls) && entry.detail.calls.length);
  return [step("send", "", el("h2", {}, el("span", { class: "step-kind" }, "ERP"), one.id ? `Order ${one.id}` : "No order yet"), null,
    facts([["State in the ERP", one.status], ["Records' digest that the ERP holds", one.record_digest && el("span", { class: "mono break" }, one.record_digest)]], "facts one"), !told && one.calls?.length ? callTable(one.calls) : null)];
}

function raw(title, content) {
  return content ? el("details", { class: "raw" }, el("summary", {}, title), el("pre", { tabindex: "0" }, JSON.stringify(content, null, 2))) : null;
}
