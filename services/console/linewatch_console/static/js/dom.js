// SPDX-License-Identifier: Apache-2.0
// Builds elements. Every text goes in as a text node: nothing from outside is ever parsed as markup.

const SVG = "http://www.w3.org/2000/svg";

/** An element: `el("p", {class: "muted", onclick: f}, "text", child)`. null and false children are left out. */
export function el(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Writes a text only when it changed, so that screen readers and layout rest. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const ICONS = {
  ok: ["M4 12.5l5 5L20 6.5"],
  ng: ["M8 2.8h8L21.2 8v8L16 21.2H8L2.8 16V8z", "M9 9l6 6M15 9l-6 6"],
  review: ["M12 3.2L22 20.5H2z", "M12 10v4.5M12 17.4v.1"],
  none: ["M12 3a9 9 0 1 0 0 18a9 9 0 0 0 0-18z", "M5.8 5.8l12.4 12.4"],
  clock: ["M12 3a9 9 0 1 0 0 18a9 9 0 0 0 0-18z", "M12 7.5V12l3 2"],
  linked: ["M4 12.5l5 5L20 6.5"],
  broken: ["M6 6l12 12M18 6L6 18"],
  dash: ["M5 12h14"],
  picture: ["M3.5 5h17v14h-17z", "M4 17l5-5 4 4 3-3 4 4", "M15.5 9.5v.1"],
  chart: ["M3.5 4v16h17", "M7 15l4-4 3 3 5-7"],
  close: ["M6 6l12 12M18 6L6 18"],
};

/** A small drawing; always beside a word, so it says nothing to screen readers. */
export function icon(name) {
  return svg("svg", { class: "icon", viewBox: "0 0 24 24", "aria-hidden": "true" },
    ...ICONS[name].map((d) => svg("path", { d })));
}
