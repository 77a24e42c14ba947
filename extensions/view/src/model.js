// What follows from a snapshot: totals, rates, what is left, where stages stand beside one another. Pure.

/** @import {Snapshot, Stage} from "./types.js" */

/** @param {Snapshot} snapshot */
export function totals(snapshot) {
  let running = 0, failed = 0, recomputed = 0, spilled = 0, shuffled = 0;
  for (const stage of snapshot.stages) {
    running += stage.running;
    failed += stage.failed;
    recomputed += stage.recomputed;
    spilled += stage.spilled_bytes;
    shuffled += stage.shuffle_write_bytes;
  }
  const alive = snapshot.executors.filter((each) => !each.removed_at);
  return { running, failed, recomputed, spilled, shuffled, executors: alive.length, slots: alive.reduce((sum, each) => sum + each.slots, 0) };
}

/**
 * Rows and bytes a second of a stage, over its time so far.
 * @param {Stage} stage @param {number} now
 */
export function rates(stage, now) {
  const seconds = Math.max(1e-3, (stage.ended_at || now) - stage.started_at);
  if (!stage.started_at) return { rows: 0, bytes: 0 };
  return { rows: stage.rows / seconds, bytes: (stage.input_bytes + stage.shuffle_read_bytes) / seconds };
}

/**
 * Seconds that running stages still take, as far as their tasks so far tell; null when nothing can be said.
 * @param {Snapshot} snapshot @param {number} now
 */
export function secondsLeft(snapshot, now) {
  let left = 0;
  for (const stage of snapshot.stages) {
    if (stage.state === "waiting") return null;
    if (stage.state !== "running") continue;
    if (!stage.done || !stage.started_at) return null;
    left = Math.max(left, ((now - stage.started_at) * (stage.task_count - stage.done)) / stage.done);
  }
  return left;
}

/**
 * Columns of a drawing: parents left of those that read them.
 * @param {Stage[]} stages
 * @returns {Stage[][]}
 */
export function columns(stages) {
  const known = new Map(stages.map((each) => [each.stage, each]));
  /** @type {Map<number, number>} */
  const depths = new Map();
  // Parents have smaller numbers than those that read them.
  for (const stage of [...stages].sort((one, other) => one.stage - other.stage)) {
    depths.set(stage.stage, 1 + Math.max(-1, ...stage.parents.filter((each) => known.has(each)).map((each) => depths.get(each) ?? 0)));
  }
  /** @type {Stage[][]} */
  const found = [];
  for (const [number, depth] of depths) {
    const stage = known.get(number);
    if (stage) (found[depth] ??= []).push(stage);
  }
  return found;
}

/** What a word says of a state, for those who do not see its colour. @param {string} state */
export function inWords(state) {
  return { waiting: "waiting", running: "running", succeeded: "done", done: "done", failed: "failed", cancelled: "cancelled", skipped: "skipped: there already" }[state] ?? state;
}

/** @param {string} state */
export function symbol(state) {
  return { waiting: "○", running: "▶", succeeded: "✔", done: "✔", failed: "✘", cancelled: "■", skipped: "↷" }[state] ?? "·";
}
