// SPDX-License-Identifier: Apache-2.0
// Builds elements and keeps them: what is on the page is changed in place, so that focus, scroll and hover stay.
// Every text goes in as a text node: nothing from outside is ever parsed as markup.

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
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false && child !== ""));
  return element;
}

/** Writes a text only when it changed, so that screen readers and layout rest. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Builds `container` anew only when `content` (anything JSON can tell) is not what it shows already; true when it did. */
export function renew(container, content, build) {
  const told = JSON.stringify(content);
  if (container.told === told) return false;
  container.told = told;
  container.replaceChildren(...[build()].flat().filter((child) => child !== null && child !== undefined && child !== false));
  return true;
}

/** Gives `container` one child for each item, in order; a child whose key stays is moved and updated, never made again.
 *  `make(item)` answers with {element, update(item)}. */
export function keyed(container, items, keyOf, make) {
  const before = container.made ?? new Map();
  const made = new Map();
  for (const item of items) {
    const key = keyOf(item);
    const one = before.get(key) ?? make(item);
    one.update?.(item);
    made.set(key, one);
  }
  for (const [key, one] of before) if (!made.has(key)) one.element.remove();
  let at = container.firstElementChild;
  for (const { element } of made.values()) {
    if (element === at) at = at.nextElementSibling;
    else container.insertBefore(element, at); // moving an element would take its focus; only what is out of order moves
  }
  container.made = made;
  return made;
}

/** Places by share of the parent, as 0..1: {left: 0.4, width: 0.2}. */
export function placed(element, share) {
  for (const [name, value] of Object.entries(share)) element.style[name] = `${(Math.max(0, Math.min(1, value)) * 100).toFixed(2)}%`;
  return element;
}

/** Terms and their values; rows without a value are left out. */
export function facts(rows, className = "facts") {
  return el("dl", { class: className }, ...rows.filter(([, value]) => value !== null && value !== "" && value !== undefined && value !== false)
    .map(([name, value, title]) => el("div", { title: title || null }, el("dt", {}, name), el("dd", {}, value))));
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
  board: ["M4 4h7v9H4zM13 4h7v5h-7zM13 11h7v9h-7zM4 15h7v5H4z"],
  wall: ["M3 4.5h18v12H3z", "M8.5 20h7M12 16.5V20"],
  orders: ["M9 6h11M9 12h11M9 18h11", "M4 5.5l1 1 1.5-2M4 11.5l1 1 1.5-2M4 17.5l1 1 1.5-2"],
  accuracy: ["M12 3a9 9 0 1 0 9 9", "M12 8a4 4 0 1 0 4 4", "M12 12L20 4M20 4v3.5M20 4h-3.5"],
  device: ["M5 5h14v14H5z", "M9 9h6v6H9z", "M9 2v3M15 2v3M9 19v3M15 19v3M2 9h3M2 15h3M19 9h3M19 15h3"],
  audit: ["M6 3h9l4 4v14H6z", "M14.5 3v4.5H19M9 12h7M9 16h7"],
  sun: ["M12 7.5a4.5 4.5 0 1 0 0 9a4.5 4.5 0 0 0 0-9z", "M12 2v2M12 20v2M2 12h2M20 12h2M5 5l1.4 1.4M17.6 17.6L19 19M5 19l1.4-1.4M17.6 6.4L19 5"],
  moon: ["M20 14.5A8.5 8.5 0 0 1 9.5 4a8.5 8.5 0 1 0 10.5 10.5z"],
  machine: ["M4 5h16v11H4z", "M9 20h6M12 16v4"],
  keys: ["M3 6.5h18v11H3z", "M7 10v.1M12 10v.1M17 10v.1M8 14h8"],
  back: ["M15 5l-7 7 7 7"],
  next: ["M9 5l7 7-7 7"],
  search: ["M11 4a7 7 0 1 0 0 14a7 7 0 0 0 0-14z", "M16 16l4.5 4.5"],
  plus: ["M12 5v14M5 12h14"],
  minus: ["M5 12h14"],
  whole: ["M4 9V4h5M20 9V4h-5M4 15v5h5M20 15v5h-5"],
  person: ["M12 4a4 4 0 1 0 0 8a4 4 0 0 0 0-8z", "M4.5 20.5c.8-4 3.7-6 7.5-6s6.7 2 7.5 6"],
  link: ["M10 14a4 4 0 0 0 5.7 0l3.3-3.3a4 4 0 0 0-5.7-5.7L12 6.3", "M14 10a4 4 0 0 0-5.7 0L5 13.300a4 4 0 0 0 5.7 5.700L12 17.7"],
  rule: ["M4 7h16M4 12h10M4 17h7", "M17 14l2 2 3-4"],
  send: ["M4 12h14", "M13 6l6 6-6 6"],
  wrench: ["M14.5 6.500a4 4 0 0 1 5-1.500L17 8l1 2 2.5.500 1-2.500a4.5 4.5 0 0 1-6 5.500L8 21l-3-3 7.5-7.500a4.5 4.5 0 0 1 2-4z"],
  pause: ["M8 5v14M16 5v14"],
  merge: ["M6 4v5c0 4 6 3 6 7v4M18 4v5c0 4-6 3-6 7", "M9 17.500l3 3 3-3"],
  shield: ["M12 3l8 3v6c0 5-3.5 8-8 9.500C7.5 20 4 17 4 12V6z", "M8.5 12l2.5 2.5 4.5-5"],
  tampered: ["M12 3l8 3v6c0 5-3.5 8-8 9.500C7.5 20 4 17 4 12V6z", "M12 8v5M12 16v.1"],
};

/** A small drawing; always beside a word, so it says nothing to screen readers. */
export function icon(name) {
  return svg("svg", { class: "icon", viewBox: "0 0 24 24", "aria-hidden": "true" },
    ...(ICONS[name] ?? ICONS.dash).map((d) => svg("path", { d })));
}
