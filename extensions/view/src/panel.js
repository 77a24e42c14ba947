// The view of a group of jobs: one line, a bar, and on request stages, drawing, timeline, executors.

import { Chart } from "./chart.js";
import { drawDag, drawSpread } from "./dag.js";
import { h, setText } from "./dom.js";
import { formatBytes, formatCount, formatSeconds, plural } from "./format.js";
import { canBeReplayed, colourOf, inWords, partDone, rates, secondsLeft, symbol, tasksInWords, totals, troubles } from "./model.js";
import { applied, Timeline } from "./state.js";
import { STYLE } from "./style.js";
import { SCHEMA } from "./types.js";

/** @import {Change, Executor, Snapshot, Stage, Delta, TimelinePart} from "./types.js" */

/** Jobs shorter than this are one line. */
const SHORT_S = 1;
/** Silence of a running job that is worth a word. */
const QUIET_S = 3;
const TABS = /** @type {const} */ (["Stages", "Graph", "Timeline", "Executors"]);

export class Panel {
  /** @type {Snapshot | null} */ snapshot = null;
  timeline = new Timeline();
  #skew = 0;
  #tab = "Stages";
  /** @type {ReturnType<typeof setInterval> | null} */ #clock = null;

  /**
   * @param {HTMLElement} host
   * @param {{cancel?: () => void, resync?: (version: number) => void}} actions what the kernel can be asked for (deltas since a version, -1 for the whole); without `cancel` there is no button
   */
  constructor(host, actions = {}) {
    this.actions = actions;
    this.title = h("span", { class: "fk-title" });
    this.numbers = h("div", { class: "fk-numbers fk-line" });
    this.note = h("div", { class: "fk-note", role: "status" });
    this.stop = h("button", { type: "button", click: () => this.#cancel() }, "Cancel");
    this.done = h("i");
    this.active = h("i");
    this.bar = h("div", { class: "fk-bar fk-whole", role: "progressbar", "aria-valuemin": 0, "aria-valuemax": 100, "aria-label": "tasks done" }, this.done, this.active);
    this.failures = h("div");
    this.hints = h("div");
    this.body = h("div", { class: "fk-scroll", role: "tabpanel" });
    this.chart = new Chart();
    this.tabs = TABS.map((name) => h("button", { type: "button", role: "tab", "aria-selected": String(name === this.#tab), click: () => this.#open(name) }, name));
    this.tabBar = h("div", { class: "fk-tabs", role: "tablist", keydown: (event) => this.#arrows(event) }, ...this.tabs);
    this.root = h("div", { class: "fk", role: "group", "aria-label": "flowkit jobs" }, h("style", {}, STYLE), h("div", { class: "fk-head" }, this.title, this.stop), this.numbers, this.bar, this.note, this.failures, this.tabBar, this.body, this.hints);
    host.replaceChildren(this.root);
  }

  /** @param {Snapshot} snapshot @param {number} now the kernel's clock, when it sent this */
  show(snapshot, now) {
    this.snapshot = snapshot;
    this.#skew = now - Date.now() / 1000;
    this.draw();
  }

  /** @param {Delta} delta @param {number} now */
  apply(delta, now) {
    const next = this.snapshot && applied(this.snapshot, delta);
    if (next) this.show(next, now);
    else if (!this.snapshot || this.snapshot.version < delta.version) this.actions.resync?.(this.snapshot?.version ?? -1);
  }

  /** @param {TimelinePart} part */
  addTimeline(part) {
    if (!this.timeline.add(part)) this.actions.resync?.(-1);
    else if (this.#tab === "Timeline") this.draw();
  }

  dispose() {
    if (this.#clock) clearInterval(this.#clock);
    this.#clock = null;
  }

  get #now() {
    return Date.now() / 1000 + this.#skew;
  }

  draw() {
    const snapshot = this.snapshot;
    if (!snapshot) return;
    if (snapshot.schema !== SCHEMA) {
      this.dispose();
      this.root.replaceChildren(h("div", {}, "This view is of another version than the kernel's flowkit: reload the page."));
      return;
    }
    const running = snapshot.state === "running" || snapshot.state === "waiting";
    if (running && !this.#clock) this.#clock = setInterval(() => this.draw(), 1000);
    if (!running) this.dispose();
    const now = this.#now, sum = totals(snapshot), elapsed = snapshot.started_at ? (snapshot.ended_at || now) - snapshot.started_at : 0;
    const short = !running && elapsed < SHORT_S && snapshot.state === "succeeded";
    this.root.dataset.state = snapshot.state;
    this.root.classList.toggle("fk-one", short);
    for (const each of [this.bar, this.tabBar, this.body]) each.hidden = short;
    setText(this.title, `${symbol(snapshot.state)} ${headline(snapshot)}`);
    const told = numbers(snapshot, sum, elapsed, running ? now : 0);
    setText(this.numbers, told);
    this.numbers.title = told; // it is one line, and cut where there is no room
    this.stop.hidden = !running || !this.actions.cancel;
    const whole = Math.max(1, snapshot.task_count);
    this.done.style.width = `${(100 * snapshot.tasks_done) / whole}%`;
    this.active.style.left = this.done.style.width;
    this.active.style.width = `${(100 * Math.min(sum.running, whole - snapshot.tasks_done)) / whole}%`;
    this.bar.setAttribute("aria-valuenow", String(Math.round((100 * snapshot.tasks_done) / whole)));
    setText(this.note, note(snapshot, sum, now, running));
    const wrong = troubles(snapshot).slice(-4).map(({ bad, text }) => h("div", { class: bad ? "fk-failure" : "fk-warning" }, `${bad ? "✘" : "⚠"} ${text}`));
    if (!running && canBeReplayed(snapshot)) wrong.push(h("div", { class: "fk-numbers" }, "%flowkit replay runs the partition that failed here, in a debugger at your line"));
    this.failures.replaceChildren(...wrong);
    this.hints.replaceChildren(...(short ? [] : snapshot.hints.map((each) => h("div", { class: "fk-hint" }, h("b", {}, each.text), `: ${each.change}`))));
    if (!short) this.#drawBody(snapshot, now);
  }

  /** @param {Snapshot} snapshot @param {number} now */
  #drawBody(snapshot, now) {
    switch (this.#tab) {
      case "Graph":
        this.body.replaceChildren(drawDag(snapshot));
        break;
      case "Timeline":
        if (this.body.firstChild !== this.chart.element) this.body.replaceChildren(this.chart.element);
        this.chart.update(this.timeline.blocks, snapshot.executors, snapshot.changes ?? []);
        break;
      case "Executors":
        this.body.replaceChildren(...(snapshot.changes ?? []).slice(-5).map((each) => change(each, snapshot)), executorTable(snapshot));
        break;
      default:
        this.body.replaceChildren(stageTable(snapshot, now));
    }
  }

  /** @param {string} name */
  #open(name) {
    this.#tab = name;
    for (const each of this.tabs) {
      each.setAttribute("aria-selected", String(each.textContent === name));
      each.tabIndex = each.textContent === name ? 0 : -1;
    }
    this.draw();
  }

  /** @param {KeyboardEvent} event */
  #arrows(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    const next = this.tabs[(TABS.findIndex((each) => each === this.#tab) + step + TABS.length) % TABS.length];
    this.#open(next.textContent ?? "");
    next.focus();
  }

  #cancel() {
    setText(this.stop, "Cancelling…");
    this.stop.disabled = true;
    this.actions.cancel?.();
  }
}

/** @param {Snapshot} snapshot */
function headline(snapshot) {
  const last = snapshot.jobs.at(-1);
  const jobs = snapshot.job_count === 1 && last ? last.name : plural(snapshot.job_count, "job");
  return snapshot.title ? `${snapshot.title}: ${jobs}` : jobs;
}

/**
 * @param {Snapshot} snapshot @param {ReturnType<typeof totals>} sum @param {number} elapsed
 * @param {number} now 0 when it is over
 */
function numbers(snapshot, sum, elapsed, now) {
  const parts = [inWords(snapshot.state) + why(snapshot), `${formatCount(snapshot.tasks_done)}/${formatCount(snapshot.task_count)} tasks`];
  if (sum.running) parts.push(`${formatCount(sum.running)} running`);
  if (sum.failed) parts.push(`${formatCount(sum.failed)} failed`);
  if (sum.recomputed) parts.push(`${formatCount(sum.recomputed)} computed again`);
  if (snapshot.skipped_count) parts.push(`${formatCount(snapshot.skipped_count)} errors skipped`);
  parts.push(formatSeconds(elapsed));
  if (now) {
    const left = secondsLeft(snapshot, now);
    if (left) parts.push(`about ${formatSeconds(left)} left`);
    let rows = 0, bytes = 0;
    for (const stage of snapshot.stages) {
      if (stage.state !== "running") continue;
      const rate = rates(stage, now);
      rows += rate.rows;
      bytes += rate.bytes;
    }
    if (rows) parts.push(`${formatCount(rows)} rows/s`);
    if (bytes) parts.push(`${formatBytes(bytes)}/s`);
    parts.push(`${plural(sum.executors, "executor")}, ${plural(sum.slots, "slot")}`);
  }
  if (sum.shuffled) parts.push(`${formatBytes(sum.shuffled)} shuffled`);
  if (sum.spilled) parts.push(`${formatBytes(sum.spilled)} spilled`);
  return parts.join(" · ");
}

/** Why it was cancelled, where that is so: of the last job that was. @param {Snapshot} snapshot */
function why(snapshot) {
  const reason = snapshot.state === "cancelled" ? snapshot.jobs.filter((job) => job.state === "cancelled" && job.reason).at(-1)?.reason : "";
  return reason ? ` (${reason})` : "";
}

/** @param {Snapshot} snapshot @param {ReturnType<typeof totals>} sum @param {number} now @param {boolean} running */
function note(snapshot, sum, now, running) {
  const parts = [];
  const silent = now - snapshot.last_event_at;
  if (running && !sum.executors) parts.push("waiting for workers");
  if (running && snapshot.last_event_at && silent > QUIET_S) parts.push(`no news for ${formatSeconds(silent)}`);
  if (snapshot.dropped_events) parts.push(`${plural(snapshot.dropped_events, "event")} missed: numbers are too low`);
  return parts.join(" · ");
}

/**
 * @typedef {{name: string, class?: string, cell: (stage: Stage) => import("./dom.js").Child, hint?: (stage: Stage) => string, always?: boolean}} Column
 */

/** @param {number} now @returns {Column[]} */
function stageColumns(now) {
  return [
    { name: "stage", class: "fk-name", always: true, cell: (stage) => h("span", {}, h("i", { class: "fk-mark", style: `background: ${colourOf(stage.stage)}` }), `${symbol(stage.state)} ${stage.stage}: ${stage.name}`) },
    { name: "", class: "fk-progress", always: true, cell: (stage) => h("div", { class: `fk-bar fk-${stage.state.replace(" ", "-")}`, role: "img", "aria-label": inWords(stage.state) }, h("i", { style: `width: ${100 * partDone(stage)}%` })) },
    { name: "tasks", class: "fk-n fk-tasks", always: true, cell: (stage) => tasksInWords(stage), hint: (stage) => inWords(stage.state) },
    { name: "time", class: "fk-n fk-extra", always: true, cell: (stage) => (stage.started_at ? formatSeconds((stage.ended_at || now) - stage.started_at) : "") },
    { name: "task times", class: "fk-extra", cell: (stage) => (stage.done ? h("span", {}, drawSpread(stage.durations), ` ${formatSeconds(stage.durations[2])}`) : ""), hint: spreadInWords },
    { name: "rows", class: "fk-n fk-extra", cell: (stage) => (stage.rows ? formatCount(stage.rows) : "") },
    { name: "read", class: "fk-n fk-extra", cell: (stage) => bytes(stage.input_bytes + stage.shuffle_read_bytes) },
    { name: "shuffled", class: "fk-n fk-extra", cell: (stage) => bytes(stage.shuffle_write_bytes) },
    { name: "spilled", class: "fk-n fk-extra", cell: (stage) => bytes(stage.spilled_bytes) },
  ];
}

/** @param {number} size */
function bytes(size) {
  return size ? formatBytes(size) : "";
}

/** @param {Stage} stage */
function spreadInWords(stage) {
  const [least, , median, , most] = stage.durations;
  return stage.done ? `least ${formatSeconds(least)}, median ${formatSeconds(median)}, most ${formatSeconds(most)}: partition ${stage.slowest_partition} on ${stage.slowest_executor}` : "";
}

/** @param {Snapshot} snapshot @param {number} now */
function stageTable(snapshot, now) {
  const order = { running: 0, failed: 1, waiting: 2 };
  const rank = (/** @type {Stage} */ stage) => order[/** @type {keyof typeof order} */ (stage.state)] ?? 3;
  const stages = [...snapshot.stages].sort((one, other) => rank(one) - rank(other) || one.stage - other.stage).slice(0, 100);
  const columns = stageColumns(now).filter((column) => column.always || stages.some((stage) => column.cell(stage)));
  return h(
    "table",
    { class: "fk-stages" },
    h("thead", {}, h("tr", {}, ...columns.map((column) => h("th", { scope: "col", class: column.class }, column.name)))),
    h("tbody", {}, ...stages.map((stage) => stageRow(stage, columns))),
  );
}

/** @param {Stage} stage @param {Column[]} columns */
function stageRow(stage, columns) {
  const cells = columns.map((column) => {
    const shown = column.cell(stage);
    return h("td", { class: `${column.class}${shown ? "" : " fk-empty"}`, "data-name": column.name, title: column.hint?.(stage) || null }, shown);
  });
  return h("tr", { title: stage.operations.join("\n") }, ...cells);
}

/** @param {Change} each @param {Snapshot} snapshot */
function change(each, snapshot) {
  return h("div", { class: "fk-numbers" }, `after ${formatSeconds(each.at - snapshot.started_at)}: ${each.before} → ${each.target} executors, ${each.reason}`);
}

/** @param {Executor} executor */
function whereabouts(executor) {
  if (!executor.removed_at) return executor.released ? "may leave" : "";
  return executor.released ? "has left" : `gone: ${executor.reason}`;
}

/** @param {Snapshot} snapshot */
function executorTable(snapshot) {
  const n = (/** @type {string | number} */ text) => h("td", { class: "fk-n" }, text);
  const head = ["executor", "", "slots", "running", "done", "failed"].map((name, place) => h("th", { scope: "col", class: place >= 2 ? "fk-n" : "" }, name));
  const rows = snapshot.executors.map((each) => h("tr", {}, h("td", { class: "fk-name" }, each.label), h("td", { class: "fk-name" }, whereabouts(each)), n(each.slots), n(each.running), n(each.done), n(each.failed)));
  return h("table", {}, h("thead", {}, h("tr", {}, ...head)), h("tbody", {}, ...rows));
}
