// What follows from a snapshot: totals, rates, what is left, where stages stand beside one another. Pure.

import { formatCount, plural } from "./format.js";

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
  return { succeeded: "done", skipped: "skipped: its output exists", "not run": "not run: its job ended before" }[state] ?? state;
}

/** @param {string} state */
export function symbol(state) {
  return { waiting: "○", running: "▶", succeeded: "✔", done: "✔", failed: "✘", cancelled: "■", skipped: "↷", "not run": "⊘" }[state] ?? "·";
}

/** How much of a stage's bar is full, of 1. @param {Stage} stage */
export function partDone(stage) {
  return stage.state === "skipped" ? 1 : stage.done / Math.max(1, stage.task_count);
}

/** What stands where a stage's tasks are counted. @param {Stage} stage */
export function tasksInWords(stage) {
  if (stage.state === "skipped" || stage.state === "not run") return stage.state;
  return `${stage.done}/${stage.task_count}${stage.failed ? ` ✘${stage.failed}` : ""}`;
}

/** Kinds of failures that are no exception of the user's. */
const OURS = new Set(["FetchFailed", "ExecutorLost", "ContentMissing", "TaskOutOfMemory"]);

/**
 * What went wrong, each thing once: lost executors with the tasks they took along, failures, jobs that failed otherwise.
 * The same in Python: flowkit/observe/troubles.py.
 * @param {Snapshot} snapshot
 * @returns {{bad: boolean, text: string}[]}
 */
export function troubles(snapshot) {
  const lost = snapshot.executors.filter((each) => each.removed_at && !each.released);
  const found = lost.map((each) => ({ bad: false, text: `executor ${each.label} is gone: ${each.reason}` }));
  const reasons = new Set(lost.map((each) => each.reason.trim().split("\n")[0]));
  for (const each of snapshot.failures) {
    if (each.kind === "ExecutorLost" && reasons.has(each.message) && !each.is_fatal) continue;
    const times = each.count > 1 ? ` (${formatCount(each.count)} times, in ${plural(each.partition_count, "partition")})` : "";
    const what = each.is_fatal ? "" : ", and was tried again";
    found.push({ bad: each.is_fatal, text: `${each.kind}: ${each.message}${times} — ${each.count > 1 ? "last " : ""}in stage ${each.stage}, partition ${each.partition}, on ${each.executor}${what}` });
  }
  if (!snapshot.failures.some((each) => each.is_fatal)) {
    for (const job of snapshot.jobs) if (job.state === "failed" && job.reason) found.push({ bad: true, text: snapshot.job_count > 1 ? `${job.name}: ${job.reason}` : job.reason });
  }
  return found;
}

/** Whether a task's exception ended a job, so that it can be replayed. @param {Snapshot} snapshot */
export function canBeReplayed(snapshot) {
  return snapshot.failures.some((each) => each.is_fatal && !OURS.has(each.kind));
}

/** Colours of stages in the timeline, the same as in flowkit/observe/static_view.py. */
const COLOURS = ["#4285c9", "#e08a32", "#4a9e5c", "#9166b8", "#c25b8f", "#3f9fa3", "#a3872f", "#7a6a5d"];

/** @param {number} stage */
export function colourOf(stage) {
  return COLOURS[stage % COLOURS.length];
}
