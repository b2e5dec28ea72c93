// SPDX-License-Identifier: Apache-2.0
// The one dialog of the page. The browser keeps the focus inside it and gives it back.

import { el, icon } from "./dom.js";

const dialog = document.getElementById("dialog");
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });

/** Shows `content` under `title`; answers with the close function. `onclose` runs however it is closed. */
export function openDialog(title, content, { wide = false, onclose = null } = {}) {
  if (dialog.open) dialog.close();
  dialog.className = wide ? "wide" : "";
  const body = el("div", { class: "dialog-body" },
    el("div", { class: "dialog-head" }, el("h2", { id: "dialog-title" }, title),
      el("button", { class: "button icon-only", type: "button", "aria-label": "Close", onclick: () => dialog.close() }, icon("close"))),
    ...content);
  dialog.replaceChildren(body);
  dialog.showModal();
  // The event comes later: by then another dialog may have taken this one's place.
  dialog.addEventListener("close", () => { body.remove(); onclose?.(); }, { once: true });
  return () => dialog.close();
}
