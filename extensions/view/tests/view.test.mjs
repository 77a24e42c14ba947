// The view on a document of few lines: what it shows for snapshots that the Python tests made, and that nothing of a user's becomes markup.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync, readdirSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

import { FakeDocument } from "./document.mjs";

globalThis.document = new FakeDocument();
globalThis.Node = FakeDocument.Node;
globalThis.requestAnimationFrame = (draw) => draw();
globalThis.setInterval = () => 0;

const { applied, Timeline } = await import("../src/state.js");
const { Panel } = await import("../src/panel.js");
const { columns, secondsLeft, totals } = await import("../src/model.js");
const { formatBytes, formatCount, formatSeconds } = await import("../src/format.js");
const { drawDag } = await import("../src/dag.js");

const story = JSON.parse(readFileSync(fileURLToPath(new URL("../../../tests/data/panel_story.json", import.meta.url)), "utf8"));

test("deltas lead from the first snapshot to the last", () => {
  let state = story.first;
  for (const delta of story.deltas) state = applied(state, delta);
  const sorted = (all, key) => [...all].sort((one, other) => (one[key] < other[key] ? -1 : 1));
  for (const [field, key] of [["jobs", "job"], ["stages", "stage"], ["executors", "executor"]]) {
    assert.deepEqual(sorted(state[field], key), sorted(story.last[field], key));
  }
  assert.deepEqual({ ...state, jobs: 0, stages: 0, executors: 0 }, { ...story.last, jobs: 0, stages: 0, executors: 0 });
});

test("a delta for another version is refused", () => {
  assert.equal(applied(story.first, { base: story.first.version + 1, version: 9, set: {} }), null);
});

test("a panel asks for what it missed when a delta does not fit, and ignores what it has", () => {
  const asked = [];
  const panel = new Panel(document.createElement("div"), { resync: (version) => asked.push(version) });
  panel.apply(story.deltas[0], 0);
  panel.show(story.first, story.first.last_event_at);
  panel.apply({ base: 999, version: 1000, set: {} }, 0);
  assert.deepEqual(asked, [-1, story.first.version]);
  for (const delta of story.deltas) panel.apply(delta, 0);
  for (const delta of story.deltas) panel.apply(delta, 0);
  assert.deepEqual(asked, [-1, story.first.version]);
  assert.equal(panel.snapshot.version, story.last.version);
});

test("a panel tells states, numbers and failures in words", () => {
  const host = document.createElement("div");
  const panel = new Panel(host, { cancel: () => {} });
  panel.show(story.last, story.last.last_event_at);
  const text = host.textContent;
  assert.match(text, /✔|✘/);
  assert.match(text, /tasks/);
  assert.match(text, /computed again/);
  for (const tab of ["Stages", "Graph", "Timeline", "Executors"]) assert.match(text, new RegExp(tab));
});

test("names of users are text, never markup", () => {
  const hostile = "<img src=x onerror=alert(1)>";
  const snapshot = structuredClone(story.last);
  snapshot.title = hostile;
  for (const stage of snapshot.stages) Object.assign(stage, { name: hostile, operations: [hostile] });
  snapshot.failures = [{ kind: hostile, message: hostile, count: 2, stage: 0, partition: 1, executor: hostile, at: 1 }];
  const host = document.createElement("div");
  const panel = new Panel(host);
  panel.show(snapshot, snapshot.last_event_at);
  assert.equal(host.all("img").length, 0);
  assert.ok(host.textContent.includes(hostile));
  assert.equal(drawDag(snapshot).all("img").length, 0);
});

test("a short job that went well is one line", () => {
  const host = document.createElement("div");
  const panel = new Panel(host);
  const short = { ...story.last, state: "succeeded", failures: [], started_at: 1, ended_at: 1.2 };
  panel.show(short, 2);
  assert.equal(panel.tabBar.hidden, true);
  panel.show({ ...short, ended_at: 9 }, 10);
  assert.equal(panel.tabBar.hidden, false);
});

test("the executors' tab tells who left and who was lost, and how many there were to be", () => {
  const host = document.createElement("div");
  const panel = new Panel(host);
  const executor = { executor: "a", label: "a", host: "h", slots: 2, running: 0, done: 4, failed: 0, removed_at: 3, reason: "closed", released: true };
  const executors = [executor, { ...executor, executor: "b", label: "b", released: false, reason: "it was killed" }];
  panel.show({ ...story.last, started_at: 1, ended_at: 9, executors, changes: [{ at: 2, before: 1, target: 4, reason: "38 tasks wait" }] }, 10);
  panel.tabBar.children.find((each) => each.textContent === "Executors").listeners.click();
  assert.match(host.textContent, /has left/);
  assert.match(host.textContent, /gone: it was killed/);
  assert.match(host.textContent, /after 1.0 s: 1 → 4 executors, 38 tasks wait/);
});

test("a silent job says since when, and that it waits for workers", () => {
  const host = document.createElement("div");
  const panel = new Panel(host);
  const waiting = { ...story.first, state: "running", last_event_at: 100, started_at: 90, executors: [] };
  panel.show(waiting, 160);
  assert.match(panel.note.textContent, /waiting for workers/);
  assert.match(panel.note.textContent, /no news for 1 min 0 s|no news for 60 s/);
});

test("a snapshot of another version is not drawn", () => {
  const host = document.createElement("div");
  const panel = new Panel(host);
  panel.show({ ...story.last, schema: 99 }, 0);
  assert.match(host.textContent, /another version/);
});

test("a timeline takes parts in order, and begins anew with an epoch", () => {
  const timeline = new Timeline();
  const block = ["a", 0, 1, 0, 1, 1, 0];
  assert.ok(timeline.add({ epoch: 0, first: 0, blocks: [block, block], growing: [block] }));
  assert.ok(timeline.add({ epoch: 0, first: 2, blocks: [block], growing: [] }));
  assert.equal(timeline.blocks.length, 3);
  assert.equal(timeline.add({ epoch: 0, first: 9, blocks: [block], growing: [] }), false);
  assert.equal(timeline.add({ epoch: 1, first: 3, blocks: [block], growing: [] }), false);
  assert.ok(timeline.add({ epoch: 1, first: 0, blocks: [block], growing: [] }));
  assert.equal(timeline.blocks.length, 1);
});

test("stages stand right of what they read", () => {
  const found = columns([{ stage: 2, parents: [0, 1] }, { stage: 0, parents: [] }, { stage: 1, parents: [0] }]);
  assert.deepEqual(found.map((column) => column.map((each) => each.stage)), [[0], [1], [2]]);
});

test("what is left is guessed only when something is known", () => {
  const stage = { state: "running", done: 5, task_count: 10, started_at: 100 };
  assert.equal(secondsLeft({ stages: [stage] }, 110), 10);
  assert.equal(secondsLeft({ stages: [stage, { state: "waiting" }] }, 110), null);
  assert.equal(totals(story.last).executors, story.last.executors.filter((each) => !each.removed_at).length);
});

test("numbers are short", () => {
  assert.deepEqual([formatCount(999), formatCount(12_345), formatBytes(1536), formatSeconds(0.0042), formatSeconds(125)], ["999", "12.3 k", "1.5 kB", "4 ms", "2 min 5 s"]);
});

test("the built file is of these sources, and small", () => {
  const here = fileURLToPath(new URL("../src/", import.meta.url));
  const hash = createHash("sha256");
  for (const name of readdirSync(here).sort()) hash.update(name).update("\0").update(readFileSync(here + name)).update("\0");
  const built = fileURLToPath(new URL("../../../flowkit/notebook/static/", import.meta.url));
  assert.equal(readFileSync(built + "widget.js.stamp", "utf8").trim(), hash.digest("hex"));
  assert.ok(readFileSync(built + "widget.js").length < 30_000);
});
