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
const { canBeReplayed, columns, secondsLeft, totals, troubles } = await import("../src/model.js");
const { blockInWords } = await import("../src/chart.js");
const { formatBytes, formatCount, formatSeconds } = await import("../src/format.js");
const { drawDag } = await import("../src/dag.js");

const data = (name) => JSON.parse(readFileSync(fileURLToPath(new URL(`../../../tests/data/${name}.json`, import.meta.url)), "utf8"));
const story = data("panel_story");

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

for (const example of data("panel_troubles")) {
  test(`what went wrong: ${example.name}`, () => {
    const { executors, failures, jobs } = example;
    const snapshot = { ...story.last, executors, failures, jobs, job_count: 1, state: jobs[0].state };
    assert.deepEqual(troubles(snapshot).map(({ bad, text }) => [bad, text]), example.troubles);
    assert.equal(canBeReplayed(snapshot), example.can_be_replayed);
    const panel = new Panel(document.createElement("div"));
    panel.show(snapshot, snapshot.last_event_at);
    assert.equal(panel.failures.textContent.includes("%flowkit replay"), example.can_be_replayed);
    for (const [bad, text] of example.troubles) assert.ok(panel.failures.textContent.includes(`${bad ? "✘" : "⚠"} ${text}`));
  });
}

test("skipped, not run, cancelled and failed have four marks, and only what is there fills its bar", () => {
  const states = { skipped: "↷", "not run": "⊘", cancelled: "■", failed: "✘" };
  const stages = Object.keys(states).map((state, number) => ({ ...story.last.stages[0], stage: number, state, done: 0, failed: 0 }));
  const host = document.createElement("div");
  new Panel(host).show({ ...story.last, stages, state: "failed", ended_at: story.last.started_at + 9 }, story.last.last_event_at);
  Object.values(states).forEach((mark, number) => assert.ok(host.textContent.includes(`${mark} ${number}: `)));
  const bars = host.all("div").filter((each) => /^fk-bar fk-(skipped|not-run|cancelled|failed)$/.test(each.attributes.class));
  assert.deepEqual(bars.map((each) => each.attributes.class.slice(10)).sort(), ["cancelled", "failed", "not-run", "skipped"]);
  assert.deepEqual(bars.filter((each) => each.firstChild.attributes.style === "width: 100%").map((each) => each.attributes["aria-label"]), ["skipped: its output exists"]);
});

test("what was cancelled says why", () => {
  const host = document.createElement("div");
  const jobs = [{ ...story.last.jobs[0], state: "cancelled", reason: "cancelled in the notebook" }];
  new Panel(host).show({ ...story.last, state: "cancelled", jobs }, story.last.last_event_at);
  assert.match(host.textContent, /cancelled \(cancelled in the notebook\) · /);
});

test("what no stage has is no column", () => {
  const heads = (stages) => {
    const host = document.createElement("div");
    new Panel(host).show({ ...story.last, stages, ended_at: story.last.started_at + 9 }, story.last.last_event_at);
    return host.all("th").map((each) => each.textContent);
  };
  const plain = { ...story.last.stages[0], input_bytes: 0, shuffle_read_bytes: 0, shuffle_write_bytes: 0, spilled_bytes: 0, rows: 0 };
  assert.deepEqual(heads([plain]), ["stage", "", "tasks", "time", "task times"]);
  assert.deepEqual(heads([{ ...plain, spilled_bytes: 9 }]), ["stage", "", "tasks", "time", "task times", "spilled"]);
});

test("the graph's boxes hold their names, and arrows tell what is shuffled", () => {
  const [first, second] = story.last.stages;
  const name = "text_file → group_by_key at In[12] line 5";
  const drawn = drawDag({ ...story.last, stages: [{ ...first, name, shuffle_write_bytes: 1536 }, { ...second, parents: [first.stage] }] });
  const texts = drawn.all("text").map((each) => each.textContent);
  assert.ok(texts.includes(`${first.stage}: ${name}`), texts.join(" | "));
  assert.ok(texts.includes("1.5 kB"), texts.join(" | "));
});

test("a task that stands alone in the timeline says which it is", () => {
  assert.equal(blockInWords(["a", 0, 2, 1, 4.5, 1, 0, 7, 1200], "n:1"), "stage 2: partition 7, 3.5 s, 1.2 k rows, on n:1");
  assert.equal(blockInWords(["a", 0, 2, 1, 2, 3, 1, -1, 0], "n:1"), "stage 2: 3 tasks, 1 failed, 1.0 s, on n:1");
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
