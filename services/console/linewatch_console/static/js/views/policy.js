// SPDX-License-Identifier: Apache-2.0
// The policy that holds, who put which version, and how an admin puts another one: the whole document, after a look at what changes.

import { RETRY_MS, get, isPassing, post } from "../api.js";
import { announce } from "../decisions.js";
import { openDialog } from "../dialog.js";
import { el, facts, icon, renew, setText } from "../dom.js";
import * as format from "../format.js";
import { plant, whyNotDecide } from "../store.js";
import { when } from "../times.js";

const MOST_CHANGES = 60;
const isAdmin = () => plant.me.role === "admin";

export class Policy {
  constructor() {
    this.title = "Policy";
    this.body = el("div", { class: "policy" });
    this.element = el("div", { class: "page" }, el("nav", { class: "crumbs", "aria-label": "Orders" }, el("a", { href: "#/orders" }, icon("back"), "Work orders")),
      el("div", { class: "page-head" }, el("h1", {}, "Policy"), el("p", { class: "muted" }, "When an alarm becomes a work order, and when a person is asked")), this.body);
    this.keys = { u: () => { location.hash = "#/orders"; } };
    this.wanted = new AbortController();
    renew(this.body, "asking", () => el("p", { class: "loading" }, "Asking the cloud for the policy"));
    this.load();
  }

  async load() {
    clearTimeout(this.again);
    try {
      this.content = await get("/api/policy", this.wanted.signal);
      this.refused = null;
    } catch (error) {
      if (error.name === "AbortError") return;
      this.refused = error;
      if (isPassing(error)) this.again = setTimeout(() => this.load(), RETRY_MS);
    }
    this.show();
  }

  update(kind) {
    if (kind === "me") this.show();
    if (this.send) this.send.disabled = Boolean(whyNotDecide());
  }

  show() {
    if (!this.content) {
      if (this.refused) renew(this.body, this.refused.message, () => el("div", { class: "empty" }, icon("clock"), el("b", {}, "The policy can't be shown now"), el("p", {}, this.refused.message)));
      return;
    }
    // What somebody is writing stays, whatever comes meanwhile; putting it says so if the policy is another one by then.
    renew(this.body, [this.content.digest, this.content.puts, isAdmin()], () => [holds(this.content), isAdmin() ? this.editor() : document_(this.content), puts(this.content)]);
  }

  /** The document as text to change. What is wrong with it is told below, and the place is marked where its name is found. */
  editor() {
    const text = el("textarea", { id: "policy-text", class: "mono policy-text", rows: 24, spellcheck: "false", autocapitalize: "none", "aria-describedby": "policy-help policy-problem" });
    text.value = this.content.text;
    const problem = el("div", { id: "policy-problem", class: "problem", role: "alert" });
    const wrong = (words) => {
      problem.replaceChildren(...(words ? [icon("review"), el("span", {}, words)] : []));
      text.setAttribute("aria-invalid", String(Boolean(words)));
      if (words) mark(text, words);
    };
    this.send = el("button", { type: "submit", class: "button primary", disabled: Boolean(whyNotDecide()) }, "See what changes");
    return el("form", { class: "panel policy-form", onsubmit: (event) => {
      event.preventDefault();
      wrong("");
      let document;
      try {
        document = JSON.parse(text.value);
      } catch (error) {
        return wrong(`This is no JSON: ${error.message}`);
      }
      const changes = differences(this.content.document, document);
      if (!changes.length) return wrong("Nothing is changed.");
      if (document?.version === this.content.version) return wrong("version: is still that of the policy that holds; give this one a version of its own");
      return this.ask(document, text.value, changes, wrong);
    } },
    el("div", { class: "field" }, el("label", { for: "policy-text" }, "The document"),
      el("p", { id: "policy-help", class: "muted" }, "Change it, and give it a new version. An older version comes back by putting it again. Try it on last month's parts first: ", el("code", {}, "linewatch policy what-if ENVIRONMENT policy.json"), "."), text), problem,
    el("div", { class: "dialog-buttons" }, el("button", { type: "button", class: "button", onclick: () => { text.value = this.content.text; wrong(""); } }, "As it holds"), this.send));
  }

  /** Shows what changes, and puts it when that is confirmed. */
  ask(document, text, changes, wrong) {
    const problem = el("div", { class: "problem", role: "alert" });
    const send = el("button", { type: "submit", class: "button primary" }, "Put this policy");
    const form = el("form", { method: "dialog", class: "decision" },
      el("p", { class: "effect approve" }, icon("rule"), el("span", {}, `Version ${document.version ?? "–"} decides instead of ${this.content.version}, in every function within a minute. Orders that are open keep the version that they were opened under.`)),
      changeTable(changes), problem,
      el("div", { class: "dialog-buttons" }, el("span", { class: "muted as" }, `As ${plant.me.name}`), el("button", { type: "button", class: "button", onclick: () => close() }, "Cancel"), send));
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      if (send.disabled) return;
      send.disabled = true;
      setText(send, "Sending …");
      try {
        this.content = await post("/api/policy", { document: text, base: this.content.digest });
        close();
        this.show();
        announce(`Put: policy ${this.content.version}`);
      } catch (refused) {
        setText(send, "Put this policy");
        send.disabled = false;
        if (refused.status !== 400) return problem.replaceChildren(icon("review"), el("span", {}, refused.message));
        close();
        wrong(refused.message); // the field is in the document
      }
      return null;
    });
    const close = openDialog("Put this policy?", [form], { wide: true });
    send.focus();
  }

  close() {
    clearTimeout(this.again);
    this.wanted.abort();
  }
}

function holds({ version, digest, pilot, document }) {
  const quiet = document.quiet_hours ?? [], rate = document.rate_limit, approval = document.approval;
  const then = { reject: "it is rejected", create: "it is created", keep: "it waits on" }[approval?.on_expiry];
  return el("section", { class: "panel", "aria-labelledby": "holds-title" }, el("div", { class: "panel-head" }, el("h2", { id: "holds-title" }, `Version ${version} holds`), pilot && el("span", { class: "chip review" }, "Pilot")),
    facts([["Pilot", pilot ? "every order waits for a person" : "off"], ...(document.bands ?? []).map((band) => [`Band ${band.name}`, `${band.on_inclusive ? "from" : "above"} ${format.score(band.on)}, off below ${format.score(band.off)}`]),
      ["Persistence", document.needed ? `${document.needed} of the last ${document.observations} parts` : null],
      ["Quiet hours", quiet.length ? quiet.map((one) => `${(one.days ?? []).join(", ")} ${one.from} to ${one.to} ${one.time_zone ?? ""}`).join("; ") : "none"],
      ["Rate limit", rate ? `${rate.orders} of an asset in ${rate.hours} h go by themselves` : null],
      ["Without a decision", approval ? `reminded after ${approval.remind_after_hours} h; after ${approval.expire_after_hours} h ${then ?? approval.on_expiry}` : null]]),
    facts([["Digest", el("span", { class: "mono break" }, digest)]], "facts one"));
}

const document_ = ({ text }) => el("section", { class: "panel raw", "aria-labelledby": "document-title" }, el("h2", { id: "document-title" }, "The document"), el("p", { class: "muted" }, "Administrators put another one."), el("pre", { tabindex: "0" }, text));

function puts({ puts: all = [] }) {
  return el("section", { class: "panel", "aria-labelledby": "puts-title" }, el("h2", { id: "puts-title" }, "Versions that were put"),
    all.length ? el("ol", { class: "plain-list" }, ...all.map((one) => el("li", {}, icon("rule"), el("span", {}, el("b", {}, one.version ?? "–"), ` by ${one.by} `, when(one.at), " ", el("span", { class: "mono muted", title: one.digest }, format.digest(one.digest))))))
      : el("p", { class: "muted" }, "None: the one that the release brought holds."));
}

/** [place, before, after] of every value that is not the same; undefined where it is not there. */
export function differences(before, after, place = "") {
  const isParent = (one) => one !== null && typeof one === "object";
  if (!isParent(before) || !isParent(after) || Array.isArray(before) !== Array.isArray(after)) return JSON.stringify(before) === JSON.stringify(after) ? [] : [[place || "the document", before, after]];
  const names = [...new Set([...Object.keys(before), ...Object.keys(after)])];
  return names.flatMap((name) => differences(before[name], after[name], Array.isArray(before) ? `${place}[${name}]` : place ? `${place}.${name}` : name));
}

function changeTable(changes) {
  const cell = (value, kind) => el("td", { class: `mono ${kind}` }, value === undefined ? "not there" : JSON.stringify(value));
  return el("div", { class: "table-box changes", tabindex: "0", role: "region", "aria-label": "What changes" }, el("table", { class: "numbers" }, el("thead", {}, el("tr", {}, ...["Place", "Now", "Then"].map((word) => el("th", { scope: "col" }, word)))),
    el("tbody", {}, ...changes.slice(0, MOST_CHANGES).map(([place, before, after]) => el("tr", {}, el("th", { scope: "row", class: "mono" }, place), cell(before, "was"), cell(after, "will"))))),
  changes.length > MOST_CHANGES && el("p", { class: "muted" }, `${changes.length - MOST_CHANGES} more places change.`));
}

/** Chooses the name of the field that the refusal begins with, as in "quiet_hours[0].from: …". */
function mark(text, words) {
  const names = (words.split(": ")[0].match(/[\w-]+/g) ?? []).filter((name) => !/^\d+$/.test(name)).reverse();
  const found = names.map((name) => `"${name}"`).find((name) => text.value.includes(name));
  text.focus();
  if (found) text.setSelectionRange(text.value.indexOf(found), text.value.indexOf(found) + found.length);
}
