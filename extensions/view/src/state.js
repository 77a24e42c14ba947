// The state a view draws: a snapshot, deltas on top of it, a timeline in parts. The other half is flowkit/observe/deltas.py.

/** @import {Snapshot, Delta, Block, TimelinePart} from "./types.js" */

const KEYED = /** @type {const} */ ({ jobs: "job", stages: "stage", executors: "executor" });
const WHOLE = /** @type {const} */ (["failures", "running_tasks", "hints", "changes"]);

/**
 * A snapshot with a delta on top; null when the delta is for another version, so that a full one is needed.
 * @param {Snapshot} state
 * @param {Delta} delta
 * @returns {Snapshot | null}
 */
export function applied(state, delta) {
  if (state.version !== delta.base) return null;
  /** @type {any} */
  const result = { ...state, ...delta.set };
  for (const field of WHOLE) if (field in delta) result[field] = delta[field];
  for (const [field, identity] of Object.entries(KEYED)) {
    const changed = delta[field] ?? [];
    const gone = new Set(delta.gone?.[field] ?? []);
    if (!changed.length && !gone.size) continue;
    /** @type {Map<any, any>} */
    const things = new Map();
    for (const each of result[field]) if (!gone.has(each[identity])) things.set(each[identity], each);
    for (const each of changed) things.set(each[identity], each);
    result[field] = [...things.values()];
  }
  return result;
}

/** A timeline as it grows: finished blocks are only ever appended, until a new epoch begins anew. */
export class Timeline {
  epoch = -1;
  /** @type {Block[]} */
  finished = [];
  /** @type {Block[]} */
  growing = [];

  /**
   * Takes a part in; false when parts before it are missing.
   * @param {TimelinePart} part
   */
  add(part) {
    if (part.first === 0) this.finished = [];
    else if (part.epoch !== this.epoch || part.first > this.finished.length) return false;
    else this.finished.length = part.first;
    this.epoch = part.epoch;
    for (const block of part.blocks) this.finished.push(block);
    this.growing = part.growing;
    return true;
  }

  get blocks() {
    return this.growing.length ? [...this.finished, ...this.growing] : this.finished;
  }
}
