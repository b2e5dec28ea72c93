// SPDX-License-Identifier: Apache-2.0
// What was done on this console, by whom, and whether its log is whole. For administrators.

import { get } from "../api.js";
import { el, icon, renew } from "../dom.js";
import * as format from "../format.js";
import { when } from "../times.js";

const MOST = 200;

export class Audit {
  constructor() {
    this.title = "Audit";
    this.body = el("div");
    this.element = el("div", { class: "page" }, el("div", { class: "page-head" }, el("h1", {}, "Audit"), el("p", { class: "muted" }, "Sign-ins, decisions and refusals on this console, newest first"),
      el("button", { type: "button", class: "button quiet", onclick: () => this.load() }, "Look again")), this.body);
    renew(this.body, "asking", () => el("p", { class: "loading" }, "Reading the log"));
    this.keys = {};
    this.load();
  }

  async load() {
    try {
      this.show(await get(`/api/audit?limit=${MOST}`));
    } catch (error) {
      const isForbidden = error.status === 403;
      renew(this.body, [error.status, error.message], () => el("div", { class: "empty" }, icon(isForbidden ? "none" : "clock"), el("b", {}, isForbidden ? "The audit log is for administrators" : "The log can't be shown now"), error.message));
    }
  }

  show(answer) {
    const entries = [...(answer.entries ?? [])].sort((a, b) => b.number - a.number);
    renew(this.body, answer, () => [
      el("div", { class: `verdict-badge slim ${answer.verified === false ? "ng" : "ok"}` }, icon(answer.verified === false ? "tampered" : "shield"), el("div", {}, el("b", {}, answer.verified === false ? "Not verified" : "Verified"), el("span", {}, answer.verified === false ? answer.fault ?? "" : "each record holds the one before"))),
      entries.length ? el("div", { class: "table-box panel", tabindex: "0", role: "region", "aria-label": "Audit log" }, el("table", { class: "numbers audit" }, el("thead", {}, el("tr", {}, ...["#", "When", "Who", "What", "Detail"].map((word) => el("th", { scope: "col" }, word)))),
        el("tbody", {}, ...entries.map((entry) => el("tr", {}, el("td", {}, String(entry.number)), el("td", {}, when(entry.at)), el("th", { scope: "row" }, entry.by || "–"), el("td", {}, format.words(entry.what)), el("td", { class: "mono said-cell", title: detail(entry) }, detail(entry)))))))
        : el("div", { class: "empty" }, el("b", {}, "Nothing is recorded yet"))]);
  }
}

const DIGEST = /^sha256:/;

/** What a person wrote first, digests last; what was sent is told field by field. */
function detail(entry) {
  if (typeof entry.detail === "string") return entry.detail;
  const { verb, reference, body, ...others } = entry.detail ?? {};
  const told = Object.entries({ verb, reference, ...(body && typeof body === "object" ? body : { body }), ...others }).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const isDigest = ([, value]) => DIGEST.test(String(value));
  return [...told.filter((one) => !isDigest(one)), ...told.filter(isDigest)].map(([name, value]) => `${format.words(name)}: ${typeof value === "object" ? JSON.stringify(value) : value}`).join(" · ");
}
