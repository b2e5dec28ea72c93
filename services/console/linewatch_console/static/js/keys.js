// SPDX-License-Identifier: Apache-2.0
// The keyboard. Never while somebody types, a dialog is open, or a modifier is held; and it can be switched off.

import { el } from "./dom.js";
import { openDialog } from "./dialog.js";

const SWITCH = "linewatch-keys";
const SEQUENCE_MS = 1500;
const GO = { b: ["#/", "Board"], w: ["#/wall", "Wall"], o: ["#/orders", "Work orders"], a: ["#/accuracy", "Accuracy"], d: ["#/device", "Device"] };
const HELP = [
  ["Anywhere", [["g b", "board"], ["g w", "wall"], ["g o", "work orders"], ["g a", "accuracy"], ["g d", "device"], ["/", "search orders"], ["h", "heat map on and off"], ["?", "this help"]]],
  ["In a list of orders", [["j", "next"], ["k", "previous"], ["Enter", "open"]]],
  ["On an order", [["a", "approve"], ["r", "reject"], ["m", "merge"], ["t", "have a parked one tried again"], ["c", "close with the finding"], ["w", "why it exists"], ["u", "back to the list"], ["+ − 0", "zoom the evidence"]]],
  ["In a dialog", [["Ctrl Enter", "send"], ["Esc", "leave it"]]],
];

export const isOn = () => localStorage.getItem(SWITCH) !== "off";
const isTyping = (target) => Boolean(target.closest?.("input, textarea, select, [contenteditable]"));

/** `actions` answers a key with a function, or nothing. */
export function listen(actions) {
  let began = -Infinity; // when g was pressed
  document.addEventListener("keydown", (event) => {
    if (!isOn() || event.ctrlKey || event.altKey || event.metaKey || event.repeat && !"jk".includes(event.key)) return;
    if (isTyping(event.target) || document.querySelector("dialog[open]")) return;
    const isSecond = performance.now() - began < SEQUENCE_MS;
    began = -Infinity;
    if (isSecond && GO[event.key]) location.hash = GO[event.key][0];
    else if (event.key === "g") began = performance.now();
    else if (event.key === "?") showHelp();
    else {
      const act = actions(event.key);
      // A button that has the focus is pressed by Enter; that is its own.
      if (!act || (event.key === "Enter" && event.target.closest("button, a, summary"))) return;
      act();
    }
    event.preventDefault();
  });
}

export function showHelp() {
  const choice = el("input", { type: "checkbox", id: "keys-on", checked: isOn(), onchange: (event) => localStorage.setItem(SWITCH, event.target.checked ? "on" : "off") });
  openDialog("Keyboard", [
    el("div", { class: "help" }, ...HELP.map(([title, keys]) => el("section", {}, el("h3", {}, title),
      el("dl", {}, ...keys.map(([key, what]) => el("div", {}, el("dt", {}, ...key.split(" ").map((one) => el("kbd", {}, one))), el("dd", {}, what))))))),
    el("label", { class: "check" }, choice, "Single keys do these things on this machine"),
  ], { wide: true });
}
