// Numbers for people. The same in Python: flowkit/observe/metrics.py.

/** @param {number} count */
export function formatCount(count) {
  for (const [size, letter] of /** @type {const} */ ([[1e9, "G"], [1e6, "M"], [1e3, "k"]])) {
    if (count >= size * 10) return `${Math.round(count / size)} ${letter}`;
    if (count >= size) return `${(count / size).toFixed(1)} ${letter}`;
  }
  return `${Math.round(count)}`;
}

/** @param {number} bytes */
export function formatBytes(bytes) {
  for (const [size, unit] of /** @type {const} */ ([[2 ** 40, "TiB"], [2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"]])) {
    if (bytes >= size) return `${(bytes / size).toFixed(bytes >= size * 10 ? 0 : 1)} ${unit}`;
  }
  return `${Math.round(bytes)} B`;
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
