// Figures as people read them.

const NONE = "–";
// Keeps a figure and its unit on one line.
const GAP = "\u00a0";
const whole = new Intl.NumberFormat("en");
const clocks = new Intl.DateTimeFormat("en", { timeStyle: "medium", hourCycle: "h23" });
const minutes = new Intl.DateTimeFormat("en", { timeStyle: "short", hourCycle: "h23" });

// A date's last second.
const LAST = 8.64e12;

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

export const count = (value) => (isNumber(value) ? whole.format(value) : NONE);

/** "1 node", "3 nodes". */
export const some = (value, noun) => `${count(value)} ${noun}${value === 1 ? "" : "s"}`;

export function duration(seconds) {
  if (!isNumber(seconds)) return NONE;
  if (seconds < 9.95) return `${Math.max(0, seconds).toFixed(1)}${GAP}s`;
  const [days, hours, mins, secs] = [
    Math.floor(seconds / 86400),
    Math.floor(seconds / 3600) % 24,
    Math.floor(seconds / 60) % 60,
    Math.floor(seconds % 60),
  ];
  if (days) return `${days}${GAP}d ${hours}${GAP}h`;
  if (hours) return `${hours}${GAP}h ${mins}${GAP}min`;
  return mins ? `${mins}${GAP}min ${secs}${GAP}s` : `${secs}${GAP}s`;
}

export function bytes(value) {
  if (!isNumber(value)) return NONE;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  let left = value;
  while (left >= 1024 && unit < units.length - 1) {
    left /= 1024;
    unit += 1;
  }
  return `${left.toFixed(unit && left < 100 ? 1 : 0)}${GAP}${units[unit]}`;
}

/** Of a hundred: 12 is "12 %". */
export const percent = (value) => (isNumber(value) ? `${Math.round(value)}${GAP}%` : NONE);

/** The time of day; `at` is seconds since the epoch. */
export const clock = (at) => timeOf(at, clocks);
export const minute = (at) => timeOf(at, minutes);

const timeOf = (at, format) => (Math.abs(at) < LAST ? format.format(at * 1000) : NONE);
