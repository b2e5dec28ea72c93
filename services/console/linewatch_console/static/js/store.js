// SPDX-License-Identifier: Apache-2.0
// What the console told last: one stream in, bounded, and everybody who shows it is told what kind of it changed.

const HISTORY = { camera: 60, sensor: 120 };
const KINDS = ["edge", "forwarder", "inference", "device", "orders"];
const SESSION_LOOK_MS = 3000;

export const settings = { staleAfter: Number(document.body.dataset.staleAfterS), site: document.body.dataset.site, device: document.body.dataset.device };

export const plant = {
  isKnown: false, tiles: new Map(), edge: null, inference: { state: "unknown", models: [] },
  forwarder: { state: "unknown", uplink: null, streams: [] }, orders: null,
  me: { name: "", role: "viewer", csrf: "", sign_in: "none" }, device: null,
  lostAt: null, // since when the console itself does not answer
  signedOut: false,
  clockOffset: 0, // seconds to add to this browser's clock to have the console's
};

const listeners = new Set();
/** `told(kind)`: "tile", "snapshot", one of KINDS, "me", "lost", "decided". Answers with its end. */
export function follow(told) {
  listeners.add(told);
  return () => listeners.delete(told);
}
const tell = (kind, content) => { for (const told of [...listeners]) told(kind, content); };

/** A decision of this page is in the cloud, or another one was there before it. */
export const tellDecided = (reference) => tell("decided", reference);

/** Seconds since 1970 by the console's clock: a wall screen's own may be years away. */
export const now = () => Date.now() / 1000 + plant.clockOffset;

export const orders = () => plant.orders?.orders ?? [];
export const orderOf = (reference) => orders().find((order) => order.reference === reference);
export const bands = () => plant.orders?.summary?.bands ?? { approval: 0.5, automatic: 0.8 };

/** Why nobody may decide at this moment; "" when this person may. */
export function whyNotDecide() {
  if (plant.signedOut) return "your session has ended";
  if (plant.lostAt) return "the console does not answer";
  if (!plant.orders || plant.orders.link.state !== "up") return "the cloud API is not reachable: approvals are off";
  return "";
}
export const decides = () => plant.me.role === "approver" || plant.me.role === "admin";

function keep(tile) {
  const told = tile.history ?? [...(plant.tiles.get(tile.key)?.history ?? []), ...(tile.new ?? [])];
  plant.tiles.set(tile.key, { ...tile, new: undefined, history: told.slice(-HISTORY[tile.kind]) });
}

function takeSnapshot(content) {
  plant.clockOffset = content.now - Date.now() / 1000;
  plant.isKnown = true;
  plant.tiles.clear();
  content.tiles.forEach(keep);
  for (const kind of KINDS) plant[kind] = content[kind];
  tell("snapshot");
}

const page = new BroadcastChannel("linewatch");
page.addEventListener("message", ({ data }) => { if (data === "signed-out") endSession(); });
/** Tells the other tabs of this browser. */
export const tellSignedOut = () => page.postMessage("signed-out");

export function endSession() {
  plant.signedOut = true;
  stream?.close();
  tell("lost");
}

let stream = null;

/** Opens the stream; the browser comes back by itself with the last message it saw. */
export function open() {
  stream?.close();
  stream = new EventSource("/api/stream");
  const listen = (kind, act) => stream.addEventListener(kind, (message) => act(JSON.parse(message.data)));
  listen("snapshot", takeSnapshot);
  listen("tile", (tile) => { keep(tile); tell("tile", tile.key); });
  for (const kind of KINDS) listen(kind, (content) => { plant[kind] = content; tell(kind); });
  stream.addEventListener("open", () => { if (plant.lostAt) { plant.lostAt = null; tell("lost"); } });
  stream.addEventListener("error", onLost);
}

async function onLost() {
  if (plant.signedOut) return;
  if (!plant.lostAt) { plant.lostAt = new Date().toISOString(); tell("lost"); }
  // The browser gives up for good when it is answered with an error, such as a session that has ended.
  if (stream.readyState !== EventSource.CLOSED) return;
  if (await look()) open();
  else if (!plant.signedOut) setTimeout(onLost, SESSION_LOOK_MS);
}

/** Asks who we are; false when the console does not answer, or answers that we are nobody any more. */
export async function look() {
  try {
    const answer = await fetch("/api/me", { headers: { Accept: "application/json" } });
    if (answer.status === 401) endSession();
    if (!answer.ok) return false;
    plant.me = await answer.json();
    tell("me");
    return true;
  } catch {
    return false;
  }
}
