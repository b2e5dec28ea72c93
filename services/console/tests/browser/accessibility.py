# SPDX-License-Identifier: Apache-2.0
"""What a page owes to people who can't see it, or not well, asked of the page itself: WCAG 2.2 AA, as far as a machine can tell."""

from playwright.sync_api import Page

# Each finding is a text; an empty list is a good page. Colours are asked of the browser, in whatever notation it answers,
# and painted on one pixel to have them as numbers; the ground is what the elements above paint, from the root on.
_LOOK = r"""() => {
  const found = [];
  const name = (one) => `${one.tagName.toLowerCase()}${one.id ? "#" + one.id : ""}${[...one.classList].map((c) => "." + c).join("")}`;
  const isShown = (one) => one.checkVisibility({ contentVisibilityAuto: true, opacityProperty: true, visibilityProperty: true });
  const painter = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d", { willReadFrequently: true });
  const known = new Map();
  const rgba = (text) => {
    if (!known.has(text)) {
      painter.clearRect(0, 0, 1, 1);
      painter.fillStyle = text;
      painter.fillRect(0, 0, 1, 1);
      known.set(text, [...painter.getImageData(0, 0, 1, 1).data].map((v, i) => (i === 3 ? v / 255 : v)));
    }
    return known.get(text);
  };
  const over = (top, under) => under.map((v, i) => (i === 3 ? 1 : top[i] * top[3] + v * (1 - top[3])));
  const ground = (one) => {
    const chain = [];
    for (let at = one; at; at = at.parentElement) chain.unshift(at);
    return chain.reduce((under, at) => {
      const style = getComputedStyle(at);
      return over(rgba(style.backgroundColor), at === document.documentElement ? [255, 255, 255, 1] : under);
    }, rgba(getComputedStyle(document.body).backgroundColor));
  };
  const light = (c) => [0.2126, 0.7152, 0.0722].reduce((sum, part, i) => { const v = c[i] / 255; return sum + part * (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); }, 0);
  const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); };

  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const texts = new Set();
  while (walker.nextNode()) if (walker.currentNode.textContent.trim()) texts.add(walker.currentNode.parentElement);
  for (const one of texts) {
    if (!isShown(one) || one.closest("[hidden], .unseen, .stage, noscript, [aria-disabled=true], :disabled, .off") || one.closest("svg")) continue;
    const style = getComputedStyle(one);
    const back = ground(one);
    const front = over(rgba(style.color), back);
    const size = parseFloat(style.fontSize);
    const least = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700) ? 3 : 4.5;
    const has = ratio(front, back);
    if (has < least) found.push(`contrast ${has.toFixed(2)} of "${one.textContent.trim().slice(0, 30)}" in ${name(one)}`);
  }
  for (const one of document.querySelectorAll("svg text")) {
    const back = ground(one.closest("svg").parentElement);
    if (ratio(over(rgba(getComputedStyle(one).fill), back), back) < 4.5) found.push(`contrast of the chart's text "${one.textContent}"`);
  }

  const label = (one) => one.getAttribute("aria-label") || (one.labels && [...one.labels].map((l) => l.textContent).join("")) || one.textContent.trim() || one.title || [...one.querySelectorAll("img[alt]")].map((i) => i.alt).join("");
  for (const one of document.querySelectorAll("button, a[href], input, textarea, select, summary, [role=img], [role=region]")) {
    if (!isShown(one)) continue;
    if (!label(one)) found.push(`no name: ${name(one)}`);
    const box = one.getBoundingClientRect();
    const isInText = one.matches("a") && getComputedStyle(one).display === "inline";
    if (one.matches("button, a[href], input, summary") && !isInText && !one.classList.contains("skip") && one.closest("label") === null && (box.width < 24 || box.height < 24)) found.push(`smaller than 24 px: ${name(one)} ${box.width.toFixed(0)} x ${box.height.toFixed(0)}`);
  }
  for (const one of document.images) if (!one.hasAttribute("alt")) found.push(`no alt: ${one.src}`);
  for (const one of document.querySelectorAll("[tabindex]")) if (one.tabIndex > 0) found.push(`tabindex ${one.tabIndex}: ${name(one)}`);
  const ids = [...document.querySelectorAll("[id]")].map((one) => one.id);
  for (const id of new Set(ids)) if (ids.filter((one) => one === id).length > 1) found.push(`id twice: ${id}`);
  for (const one of document.querySelectorAll("[aria-labelledby], [aria-describedby]"))
    for (const id of (one.getAttribute("aria-labelledby") ?? one.getAttribute("aria-describedby")).split(" "))
      if (!document.getElementById(id) && !one.matches("dialog:not([open])")) found.push(`${name(one)} names ${id}, which is not there`);
  for (const place of ["main", "header"]) if (document.querySelectorAll(place === "header" ? "body > header" : place).length !== 1) found.push(`not one ${place}`);
  const heads = [...document.querySelectorAll("h1, h2, h3, h4")].filter((one) => isShown(one) || one.classList.contains("unseen")).map((one) => Number(one.tagName[1]));
  if (heads.filter((level) => level === 1).length !== 1) found.push(`${heads.filter((level) => level === 1).length} headings of level 1`);
  heads.forEach((level, at) => { if (at && level > heads[at - 1] + 1) found.push(`heading ${level} after ${heads[at - 1]}`); });
  for (const list of document.querySelectorAll("ul, ol")) for (const child of list.children) if (child.tagName !== "LI") found.push(`${name(child)} in a list`);
  for (const list of document.querySelectorAll("dl")) for (const child of list.children) if (!["DIV", "DT", "DD"].includes(child.tagName)) found.push(`${name(child)} in a dl`);
  if (!document.documentElement.lang) found.push("the page has no language");
  return [...new Set(found)];
}"""


def faults(page: Page) -> list[str]:
    """Everything that is wrong with the page as it stands; empty for a good one."""
    found: list[str] = page.evaluate(_LOOK)
    return found
