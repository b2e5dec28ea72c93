// SPDX-License-Identifier: Apache-2.0
// Wires the page: the stream, the address, the keyboard, and the head that every view shares.

import { KEYS, decide } from "./decisions.js";
import { el, icon, setText } from "./dom.js";
import * as format from "./format.js";
import * as head from "./head.js";
import * as keys from "./keys.js";
import * as store from "./store.js";
import { isHeld } from "./statuses.js";
import { tickTimes } from "./times.js";
import { Accuracy } from "./views/accuracy.js";
import { Audit } from "./views/audit.js";
import { Board } from "./views/board.js";
import { Device } from "./views/device.js";
import { Order } from "./views/order.js";
import { OrderQueue } from "./views/orders.js";
import { Wall } from "./views/wall.js";
import { Policy } from "./views/policy.js";
import { Why } from "./views/why.js";

const ROUTES = [
  [/^#?\/?$/, "board", () => new Board()],
  [/^#\/wall$/, "wall", () => new Wall()],
  [/^#\/orders$/, "orders", () => new OrderQueue()],
  [/^#\/orders\/([A-Za-z0-9_-]{1,80})$/, "orders", (reference) => new Order(reference)],
  [/^#\/orders\/([A-Za-z0-9_-]{1,80})\/why$/, "orders", (reference) => new Why(reference)],
  [/^#\/accuracy$/, "accuracy", () => new Accuracy()],
  [/^#\/policy$/, "orders", () => new Policy()],
  [/^#\/device$/, "device", () => new Device()],
  [/^#\/audit$/, "audit", () => new Audit()],
];
const main = document.getElementById("view");
let view = null;
let shownHash = null;

function route() {
  // The skip link's own address is no view.
  if (location.hash === "#view") return main.focus();
  if (location.hash === shownHash) return;
  const isFirst = shownHash === null;
  shownHash = location.hash;
  const found = ROUTES.map(([pattern, name, make]) => [location.hash.match(pattern), name, make]).find(([match]) => match);
  view?.close?.();
  const [match, name, make] = found ?? [[], "", nowhere];
  view = make(...match.slice(1));
  document.body.dataset.view = name;
  document.title = `${view.title} · Linewatch`;
  main.replaceChildren(view.element);
  view.update?.("snapshot");
  head.showView(name);
  window.scrollTo(0, 0);
  if (!isFirst) main.focus({ preventScroll: true });
  return null;
}

const nowhere = () => ({ title: "Not found", element: el("div", { class: "page" },
  el("div", { class: "empty" }, el("b", {}, "There is no such page"), el("a", { href: "#/" }, "Back to the board"))) });

store.follow((kind, content) => {
  if (kind === "snapshot" || kind === "me" || kind === "orders") head.showNav();
  if (kind !== "tile") head.showLinks();
  view?.update?.(kind, content);
});

keys.listen((key) => {
  const own = view?.keys?.[key];
  if (own !== undefined) return own;
  const order = view?.order?.();
  const what = Object.keys(KEYS).find((name) => KEYS[name] === key);
  if (order && what) return () => decide(order, what);
  if (order && key === "w") return () => { location.hash = `#/orders/${order.reference}/why`; };
  if (order && key === "Enter") return () => { location.hash = `#/orders/${order.reference}`; };
  if (key === "/") return () => { location.hash = "#/orders"; route(); view.focusSearch(); };
  return null;
});

window.addEventListener("hashchange", route);
document.getElementById("help").append(icon("keys"));
document.getElementById("help").addEventListener("click", keys.showHelp);
document.getElementById("sign-out")?.addEventListener("submit", store.tellSignedOut);
head.begin();
// Where a link led before somebody signed in at an identity provider; it leads on once.
const leadsTo = sessionStorage.getItem("linewatch-leads-to");
sessionStorage.removeItem("linewatch-leads-to");
if (leadsTo?.startsWith("#/") && !location.hash) history.replaceState(null, "", leadsTo);
route();
store.look();
store.open();

setInterval(() => view?.tick?.(store.now()), 250);
let held = "";
function tickSecond() {
  tickTimes();
  // A hold ends by the clock: nothing comes from the cloud at that moment.
  const now = store.orders().filter(isHeld).map((order) => order.reference).join();
  if (now !== held) view?.update?.("orders");
  held = now;
  setText(document.getElementById("clock"), format.now());
}
tickSecond();
setInterval(tickSecond, 1000);
