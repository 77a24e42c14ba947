// Numbers for people. The same in Python: flowkit/observe/metrics.py.

/** @param {number} value @param {number} base @param {string[]} units */
function scaled(value, base, units) {
  for (const unit of units) {
    if (value < base || unit === units.at(-1)) return `${value.toFixed(unit === units[0] || value >= 100 ? 0 : 1)} ${unit}`.trimEnd();
    value /= base;
  }
  return "";
}

/** @param {number} count */
export function formatCount(count) {
  return scaled(count, 1000, ["", "k", "M", "G", "T"]);
}

/** @param {number} bytes */
export function formatBytes(bytes) {
  return scaled(bytes, 1024, ["B", "kB", "MB", "GB", "TB", "PB"]);
}

/** @param {number} seconds */
export function formatSeconds(seconds) {
  if (seconds <= 0) return "0 s";
  if (seconds < 0.001) return `${Math.round(seconds * 1e6)} µs`;
  if (seconds < 1) return `${Math.round(seconds * 1e3)} ms`;
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${Math.floor(seconds % 60)} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** @param {number} count @param {string} noun */
export function plural(count, noun) {
  return `${formatCount(count)} ${noun}${count === 1 ? "" : "s"}`;
}
