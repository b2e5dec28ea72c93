// SPDX-License-Identifier: Apache-2.0
// The head that every view shares: where one is, whether the ways to broker, cloud and console stand, the theme.

import { el, icon, renew } from "./dom.js";
import * as format from "./format.js";
import { announce } from "./decisions.js";
import { orders, plant } from "./store.js";

const at = (id) => document.getElementById(id);
const VIEWS = [["board", "#/", "Board"], ["wall", "#/wall", "Wall"], ["orders", "#/orders", "Orders"], ["accuracy", "#/accuracy", "Accuracy"], ["device", "#/device", "Device"], ["audit", "#/audit", "Audit"]];
const THEMES = { auto: ["machine", "Theme: as this machine"], light: ["sun", "Theme: light"], dark: ["moon", "Theme: dark"] };
const CLOCK_IS_OFF_S = 5;
let current = "";
let wasAway = false;

export function begin() {
  at("theme").addEventListener("click", () => {
    const order = ["auto", "light", "dark"];
    showTheme(order[(order.indexOf(theme()) + 1) % order.length]);
  });
  showTheme(theme());
  showNav();
  showLinks();
}

const theme = () => document.documentElement.dataset.theme ?? "auto";

function showTheme(chosen) {
  if (chosen === "auto") {
    delete document.documentElement.dataset.theme;
    localStorage.removeItem("linewatch-theme");
  } else {
    document.documentElement.dataset.theme = chosen;
    localStorage.setItem("linewatch-theme", chosen);
  }
  const [drawing, words] = THEMES[chosen];
  at("theme").replaceChildren(icon(drawing));
  at("theme").title = words;
  at("theme").setAttribute("aria-label", words);
}

export function showView(name) {
  current = name;
  showNav();
}

export const waiting = () => plant.orders?.summary?.work_orders.awaiting_approval ?? orders().filter((order) => order.status === "awaiting_approval").length;

export function showNav() {
  const count = waiting();
  const views = VIEWS.filter(([name]) => name !== "audit" || plant.me.role === "admin");
  renew(at("views"), [current, count, views.length], () => views.map(([name, href, word]) =>
    el("a", { href, "aria-current": name === current ? "page" : null, title: `${word}${name === "audit" ? "" : ` (g ${word[0].toLowerCase()})`}` }, icon(name), el("span", {}, word),
      name === "orders" && count > 0 && el("b", { class: "badge", "aria-label": `${count} await approval` }, String(count)))));
  if (plant.me.name) renew(at("me"), [plant.me.name, plant.me.role], () => [icon("person"),
    el("span", { class: "operator", title: `Signed in as ${plant.me.name}; decisions are recorded under this name` }, plant.me.name), el("span", { class: "chip role" }, plant.me.role)]);
}

export function showLinks() {
  const { edge, forwarder, orders: cloud } = plant;
  // What the forwarder said last is no news once the way to it is broken.
  const uplink = forwarder.state === "offline" || !edge?.connected ? null : forwarder.uplink;
  const links = [
    edge && ["Broker", edge.connected, edge.connected ? "connected" : "away", edge],
    plant.isKnown && ["Uplink", uplink ? uplink.connected : null, uplink ? (uplink.connected ? "online" : "offline") : "unknown", uplink],
    cloud && ["Cloud", { down: false, up: true }[cloud.link.state] ?? null, { up: "reachable", down: "away", off: "not set", waiting: "waiting" }[cloud.link.state], cloud.link],
  ].filter(Boolean);
  renew(at("links"), links, () => links.map(([name, isUp, word, link]) =>
    el("li", { class: `link ${isUp === null ? "idle" : isUp ? "" : "bad"}`, title: `${name}: ${[word, link?.since && `since ${format.timeOf(link.since, true)}`, link?.detail].filter(Boolean).join(", ")}` },
      icon(isUp === null ? "dash" : isUp ? "linked" : "broken"), el("span", {}, `${name} `, el("b", {}, word)))));
  showNotices();
}

function showNotices() {
  const notices = [];
  const cloud = plant.orders?.link;
  if (plant.signedOut) notices.push(["bad", "broken", "Your session has ended", "What is shown here is from before. Nothing can be decided.", "sign-in"]);
  else if (plant.lostAt) notices.push(["bad", "broken", `This page lost the console at ${format.timeOf(plant.lostAt, true)}`, "It shows what was then, and asks again by itself."]);
  else {
    if (plant.edge && !plant.edge.connected) notices.push(["bad", "broken", `The broker is not reachable since ${format.timeOf(plant.edge.since)}`,
      `${plant.tiles.size ? "The wall shows what was last heard." : "Nothing has been heard yet."} ${plant.edge.detail}`]);
    if (cloud?.state === "down") notices.push(["warn", "clock", `The cloud is not reachable since ${format.timeOf(cloud.since)}`,
      `Approvals are off, the lines go on. ${plant.orders.as_of ? `The list is of ${format.timeOf(plant.orders.as_of, true)}. ` : ""}${cloud.detail}`]);
    if (Math.abs(plant.clockOffset) > CLOCK_IS_OFF_S) notices.push(["", "clock", `This machine's clock is ${format.duration(Math.abs(plant.clockOffset))} ${plant.clockOffset > 0 ? "behind" : "ahead of"} the console's`,
      "Ages here go by the console's."]);
  }
  renew(at("notices"), [notices, plant.signedOut], () => notices.map(([kind, drawing, title, text, more]) => el("p", { class: `notice ${kind}` }, icon(drawing),
    el("span", {}, el("b", {}, title), ". ", text), more === "sign-in" && el("a", { class: "button primary", href: `/login${location.hash}` }, "Sign in"))));
  document.body.classList.toggle("away", Boolean(plant.lostAt || plant.signedOut));
  document.body.classList.toggle("unheard", !plant.edge?.connected);
  const isAway = Boolean(plant.lostAt || plant.signedOut || cloud?.state === "down" || (plant.edge && !plant.edge.connected));
  if (isAway !== wasAway) announce(isAway ? notices.map(([, , title]) => title).join(". ") : "Everything is reachable again");
  wasAway = isAway;
}

