// SPDX-License-Identifier: Apache-2.0
// Reports a failure that no work order told of: without these nobody knows what the alarms miss.

import { get, post } from "./api.js";
import { announce } from "./decisions.js";
import { openDialog } from "./dialog.js";
import { el, icon } from "./dom.js";

/** What the page calls the fields that the API names. */
const LABELS = { asset_id: "Asset", failure_mode: "Failure mode", found_at: "Found", note: "Note" };

/** A refusal in the page's words: "found_at: must lie …" of the field that is labelled Found. */
function inWords(message) {
  const [, name, why] = message.match(/^(\w+): (.*)$/s) ?? [];
  return Object.hasOwn(LABELS, name ?? "") ? { name, text: `${LABELS[name]}: ${why}` } : { name: "", text: message };
}

/** Asks for it; `done` runs once the cloud has it. */
export function reportEscape(done) {
  const assets = el("datalist", { id: "assets" });
  const field = (name, more = {}) => el("div", { class: "field" }, el("label", { for: `escape-${name}` }, LABELS[name]), el("input", { id: `escape-${name}`, name, maxlength: 80, required: true, ...more }));
  const problem = el("div", { class: "problem", role: "alert" });
  const send = el("button", { type: "submit", class: "button primary" }, "Report");
  const form = el("form", { method: "dialog", class: "decision" },
    el("p", { class: "effect" }, icon("review"), el("span", {}, "An asset failed, and no order had told of it. It counts against what the alarms catch; nothing is created in the ERP.")),
    assets, field("asset_id", { list: "assets", placeholder: "Such as TF-01" }), field("failure_mode", { placeholder: "Such as hpc-degradation" }),
    field("found_at", { type: "datetime-local" }), el("div", { class: "field" }, el("label", { for: "escape-note" }, LABELS.note), el("textarea", { id: "escape-note", name: "note", maxlength: 500, rows: 2 })), problem,
    el("div", { class: "dialog-buttons" }, el("button", { type: "button", class: "button", onclick: () => close() }, "Cancel"), send));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (send.disabled) return;
    send.disabled = true;
    problem.replaceChildren();
    for (const one of form.querySelectorAll("[aria-invalid]")) one.removeAttribute("aria-invalid");
    const told = Object.fromEntries(new FormData(form));
    try {
      await post("/api/escapes", { ...told, found_at: new Date(told.found_at).toISOString() });
      close();
      announce(`Reported: ${told.failure_mode} of ${told.asset_id}`);
      done();
    } catch (refused) {
      const { name, text } = inWords(refused.message);
      problem.replaceChildren(icon("review"), el("p", {}, text));
      if (name) form.elements[name].setAttribute("aria-invalid", "true");
    }
    send.disabled = false;
  });
  const close = openDialog("Report a missed failure", [form]);
  form.querySelector("input").focus();
  // Only a help: what is typed is checked by the cloud.
  get("/api/assets").then(({ assets: all }) => assets.append(...[...new Map(all.map((one) => [one.asset_id, one.asset_name ?? one.name ?? ""]))].map(([id, name]) => el("option", { value: id }, name)))).catch(() => {});
}
