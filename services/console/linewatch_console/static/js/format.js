// SPDX-License-Identifier: Apache-2.0
// Numbers and times as people read them. Missing values are an en dash, never 0.

const NONE = "–";
const whole = new Intl.NumberFormat("en-GB", { maximumFractionDigits: 0 });
const MOST_WHOLE = 99999;
const compact = new Intl.NumberFormat("en-GB", { notation: "compact", maximumSignificantDigits: 3, roundingMode: "floor" });
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const clockSeconds = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const full = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit" });
const calendar = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric" });
const calendarDay = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric", timeZone: "UTC" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

export const count = (value) => (isNumber(value) ? whole.format(value) : NONE);

/** As `count`, for a narrow place: six digits and more as "123k" and "9.99M", never more than there are. */
export const shortCount = (value) => (isNumber(value) && value > MOST_WHOLE ? compact.format(value).replace("m", "M") : count(value));

export const score = (value) => (isNumber(value) ? value.toFixed(2) : NONE);

export const rate = (value) => (isNumber(value) ? (value < 10 ? value.toFixed(1) : whole.format(value)) : NONE);

export const milliseconds = (value) =>
  isNumber(value) ? (value < 10 ? `${value.toFixed(1)} ms` : `${whole.format(value)} ms`) : NONE;

export function bytes(value) {
  if (!isNumber(value)) return NONE;
  if (value < 1024) return `${value} B`;
  // What would be rounded to 1024 is 1 of the next unit.
  if (value < 1023.5 * 1024) return `${(value / 1024).toFixed(value < 10240 ? 1 : 0)} KB`;
  if (value < 1023.5 * 1048576) return `${(value / 1048576).toFixed(value < 104857600 ? 1 : 0)} MB`;
  return `${(value / 1073741824).toFixed(value < 107374182400 ? 1 : 0)} GB`;
}

/** Seconds as "0.4 s", "12 s", "3 min", "2 h 10 min", "3 d 4 h". */
export function duration(seconds) {
  if (!isNumber(seconds)) return NONE;
  const s = Math.max(0, seconds);
  if (s < 3) return `${s.toFixed(1)} s`;
  if (s < 100) return `${Math.floor(s)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  const both = (most, unit, least, word) => (least ? `${most} ${unit} ${least} ${word}` : `${most} ${unit}`);
  if (s < 86400) return both(Math.floor(s / 3600), "h", Math.floor((s % 3600) / 60), "min");
  return both(Math.floor(s / 86400), "d", s < 864000 ? Math.floor((s % 86400) / 3600) : 0, "h");
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

/** How long ago, or until: "just now", "12 min ago", "in 3 h 10 min". `now` in seconds since 1970. */
export function relative(text, now) {
  const at = Date.parse(text) / 1000;
  if (!Number.isFinite(at)) return NONE;
  const distance = now - at;
  if (Math.abs(distance) < 5) return "just now";
  return distance > 0 ? `${duration(distance)} ago` : `in ${duration(-distance)}`;
}

export const percent = (value, digits = 0) => (isNumber(value) ? `${(value * 100).toFixed(digits)}\u00a0%` : NONE);

/** The first figures of a digest, enough to compare by eye. */
export const digest = (value) => (value ? String(value).replace(/^sha256:/, "").slice(0, 12) : NONE);

/** RFC 3339 as a whole local date and time, for titles and prints. */
export function moment(text) {
  const at = new Date(text);
  return Number.isNaN(at.getTime()) ? NONE : full.format(at);
}

/** A day alone is that day wherever one looks from: a browser reads it as midnight in Greenwich. */
export const date = (text) => {
  const at = new Date(text);
  if (Number.isNaN(at.getTime())) return String(text || NONE);
  return (/^\d{4}-\d{2}-\d{2}$/.test(text) ? calendarDay : calendar).format(at);
};

/** "hold_until" may be seconds since 1970 or RFC 3339; the API's own texts are RFC 3339. "" when there is none. */
export function stamp(value) {
  if (isNumber(value)) return value > 0 ? new Date(value * 1000).toISOString() : "";
  return value || "";
}

/** What fails, short: the failure type without its bracket, else the failure mode's code in words. */
export const failure = (order) => (order.failure_type || "").replace(/\s*\(.*$/, "") || words(order.failure_mode);
