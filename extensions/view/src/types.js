// What a snapshot holds, as the kernel sends it: flowkit/observe/snapshot.py.

/**
 * @typedef {{job: number, name: string, state: string, started_at: number, ended_at: number, reason: string,
 *   stages: number[]}} Job
 * @typedef {{stage: number, name: string, operations: string[], parents: number[], writes_shuffle: boolean, state: string,
 *   attempts: number, task_count: number, done: number, running: number, failed: number, recomputed: number, rows: number,
 *   rows_out: number, input_bytes: number, shuffle_read_bytes: number, shuffle_write_bytes: number, spilled_bytes: number,
 *   task_seconds: number, started_at: number, ended_at: number, durations: number[], slowest_partition: number,
 *   slowest_executor: string, failure: string}} Stage
 * @typedef {{executor: string, label: string, host: string, slots: number, running: number, done: number, failed: number,
 *   removed_at: number, reason: string, released: boolean}} Executor
 * @typedef {{at: number, before: number, target: number, reason: string}} Change
 * @typedef {{kind: string, message: string, count: number, stage: number, partition: number, executor: string,
 *   at: number, partition_count: number, is_fatal: boolean}} Failure
 * @typedef {{attempt: number, stage: number, partition: number, executor: string, started_at: number}} RunningTask
 * @typedef {{kind: string, text: string, change: string}} Hint
 * @typedef {{schema: number, version: number, title: string, state: string, started_at: number, ended_at: number,
 *   last_event_at: number, jobs: Job[], stages: Stage[], executors: Executor[], failures: Failure[],
 *   running_tasks: RunningTask[], hints: Hint[], job_count: number, task_count: number, tasks_done: number, failure_count: number, skipped_count: number,
 *   dropped_events: number, changes: Change[]}} Snapshot
 * @typedef {[executor: string, lane: number, stage: number, start: number, end: number, tasks: number, failed: number, partition: number, rows: number]} Block
 * @typedef {{epoch: number, first: number, blocks: Block[], growing: Block[]}} TimelinePart
 * @typedef {{base: number, version: number, set: Record<string, any>, gone?: Record<string, any[]>} & Record<string, any>} Delta
 */

/** The form of snapshots this code can draw. */
export const SCHEMA = 1;
