// SPDX-License-Identifier: Apache-2.0
// Numbers and times as people read them. Missing values are an en dash, never 0.

const NONE = "–";
const whole = new Intl.NumberFormat("en-GB", { maximumFractionDigits: 0 });
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const clockSeconds = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

export const count = (value) => (isNumber(value) ? whole.format(value) : NONE);

export const score = (value) => (isNumber(value) ? value.toFixed(2) : NONE);

export const rate = (value) => (isNumber(value) ? (value < 10 ? value.toFixed(1) : whole.format(value)) : NONE);

export const milliseconds = (value) =>
  isNumber(value) ? (value < 10 ? `${value.toFixed(1)} ms` : `${whole.format(value)} ms`) : NONE;

export function bytes(value) {
  if (!isNumber(value)) return NONE;
  if (value < 1024) return `${value} B`;
  if (value < 1024 * 1024) return `${(value / 1024).toFixed(value < 10240 ? 1 : 0)} KB`;
  return `${(value / 1048576).toFixed(value < 104857600 ? 1 : 0)} MB`;
}

/** Seconds as "0.4 s", "12 s", "3 min", "2 h 10 min", "3 d 4 h". */
export function duration(seconds) {
  if (!isNumber(seconds)) return NONE;
  const s = Math.max(0, seconds);
  if (s < 3) return `${s.toFixed(1)} s`;
  if (s < 100) return `${Math.floor(s)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

/** RFC 3339 as local time: "04:01", with the day when it is not today. */
export function timeOf(text, seconds = false) {
  const at = new Date(text);
  if (Number.isNaN(at.getTime())) return NONE;
  const hours = (seconds ? clockSeconds : clock).format(at);
  return at.toDateString() === new Date().toDateString() ? hours : `${day.format(at)} ${hours}`;
}

export const now = () => clockSeconds.format(new Date());

/** "31 cycles (18–47)"; "> 125 cycles" where the model sees no further. */
export function timeToFailure(interval) {
  if (!interval || !isNumber(interval.p50)) return NONE;
  const unit = interval.unit ? ` ${interval.unit}s` : "";
  if (interval.beyond_horizon) return `> ${count(interval.horizon ?? interval.p50)}${unit}`;
  return `${count(interval.p50)}${unit} (${count(interval.p10)}–${count(interval.p90)})`;
}

/** "cell-crack" as "Cell crack"; the code itself stays in the title. */
export function words(code) {
  const text = String(code || "").replaceAll("-", " ").replaceAll("_", " ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** What fails, short: the failure type without its bracket, else the failure mode's code in words. */
export const failure = (order) => order.failure_type.replace(/\s*\(.*$/, "") || words(order.failure_mode);
