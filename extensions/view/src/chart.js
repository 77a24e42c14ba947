// The timeline of tasks: a lane for each slot of each executor, drawn on a canvas, so that thousands of blocks cost nothing.

import { h, setText } from "./dom.js";
import { formatCount, formatSeconds, plural } from "./format.js";
import { colourOf } from "./model.js";

/** @import {Block, Change, Executor} from "./types.js" */

const LANE = 14, LABEL = 150, MOST_LANES = 40;

export class Chart {
  /** @type {Block[]} */ #blocks = [];
  /** @type {Change[]} */ #changes = [];
  /** @type {Map<string, string>} */ #labels = new Map();
  /** seconds shown; null: all there are @type {[number, number] | null} */ #window = null;
  /** @type {number | null} */ #dragged = null;
  #pending = false;

  constructor() {
    this.canvas = h("canvas", {
      tabindex: 0,
      role: "img",
      "aria-label": "task timeline",
      wheel: (event) => {
        if (!event.ctrlKey && !event.shiftKey) return; // plain scrolling is the page's
        event.preventDefault();
        this.#zoom(event.deltaY > 0 ? 1.25 : 0.8, this.#timeAt(event.offsetX));
      },
      pointerdown: (event) => {
        this.#dragged = event.offsetX;
        this.canvas.setPointerCapture(event.pointerId);
      },
      pointermove: (event) => this.#moved(event),
      pointerup: () => (this.#dragged = null),
      dblclick: () => this.#show(null),
      keydown: (event) => this.#key(event),
    });
    this.tip = h("div", { class: "fk-tip" });
    const zoom = (/** @type {string} */ label, /** @type {string} */ title, /** @type {() => void} */ act) => h("button", { type: "button", title, "aria-label": title, click: act }, label);
    this.element = h(
      "div",
      {},
      this.canvas,
      h("div", { class: "fk-tabs" }, zoom("+", "zoom in", () => this.#zoom(0.6)), zoom("−", "zoom out", () => this.#zoom(1.7)), zoom("all", "show all", () => this.#show(null)), this.tip),
    );
  }

  /** @param {Block[]} blocks @param {Executor[]} executors @param {Change[]} changes */
  update(blocks, executors, changes) {
    this.#blocks = blocks;
    this.#changes = changes;
    for (const each of executors) this.#labels.set(each.executor, each.label);
    this.redraw();
  }

  redraw() {
    if (this.#pending) return;
    this.#pending = true;
    requestAnimationFrame(() => {
      this.#pending = false;
      this.#draw();
    });
  }

  /** @returns {[number, number]} */
  #all() {
    let first = Infinity, last = -Infinity;
    for (const [, , , start, end] of this.#blocks) {
      if (start < first) first = start;
      if (end > last) last = end;
    }
    return first < last ? [first, last] : [0, 1];
  }

  #lanes() {
    /** @type {Map<string, number>} */
    const found = new Map();
    for (const [executor, lane] of this.#blocks) found.set(`${executor}\n${lane}`, 0);
    [...found.keys()].sort().forEach((key, place) => found.set(key, place));
    return found;
  }

  #draw() {
    const lanes = this.#lanes();
    const shown = Math.min(lanes.size, MOST_LANES);
    const width = this.canvas.clientWidth || 600, height = Math.max(1, shown) * LANE + 18;
    const ratio = globalThis.devicePixelRatio || 1;
    this.canvas.style.height = `${height}px`;
    this.canvas.width = width * ratio;
    this.canvas.height = height * ratio;
    const context = this.canvas.getContext("2d");
    if (!context) return;
    context.scale(ratio, ratio);
    const style = getComputedStyle(this.canvas);
    const bad = style.getPropertyValue("--fk-bad").trim() || "#d32f2f";
    const [from, to] = this.#window ?? this.#all();
    const scale = (width - LABEL) / (to - from);
    context.font = "11px sans-serif";
    for (const [executor, lane, stage, start, end, , failed] of this.#blocks) {
      const place = lanes.get(`${executor}\n${lane}`) ?? 0;
      if (place >= shown || end < from || start > to) continue;
      const x = LABEL + Math.max(0, (start - from) * scale);
      context.fillStyle = colourOf(stage);
      context.fillRect(x, place * LANE + 2, Math.max(1, Math.min(width, LABEL + (end - from) * scale) - x - ((end - start) * scale > 3 ? 1 : 0)), LANE - 4);
      if (failed) {
        context.fillStyle = bad;
        context.fillRect(x, place * LANE + LANE - 5, Math.max(2, (end - start) * scale), 3);
      }
    }
    context.fillStyle = style.color;
    for (const [key, place] of lanes) {
      if (place >= shown) continue;
      const [executor, lane] = key.split("\n");
      context.fillText(`${this.#labels.get(executor) ?? executor} #${lane}`.slice(-24), 0, place * LANE + 11);
    }
    context.globalAlpha = 0.6;
    context.setLineDash([3, 2]);
    let free = LABEL + 30; // right of the first time, left of the last
    for (const { at, before, target } of this.#changes) {
      if (at < from || at > to) continue;
      const x = LABEL + (at - from) * scale;
      context.beginPath();
      context.moveTo(x, 0);
      context.lineTo(x, height - 14);
      context.strokeStyle = style.color;
      context.stroke();
      if (x < free || x > width - 70) continue;
      context.fillText(`${before}→${target}`, x + 2, height - 4);
      free = x + 34;
    }
    context.globalAlpha = 1;
    context.setLineDash([]);
    const left = `${formatSeconds(Math.max(0, from - this.#all()[0]))}`, right = `${formatSeconds(to - this.#all()[0])}`;
    context.fillText(left, LABEL, height - 4);
    context.fillText(right, width - context.measureText(right).width, height - 4);
    const hidden = lanes.size - shown;
    this.canvas.setAttribute("aria-label", `task timeline: ${plural(this.#blocks.length, "block")} in ${plural(lanes.size, "slot")}${hidden ? `, ${hidden} slots not shown` : ""}`);
  }

  /** @param {number} x */
  #timeAt(x) {
    const [from, to] = this.#window ?? this.#all();
    const part = (x - LABEL) / Math.max(1, (this.canvas.clientWidth || 600) - LABEL);
    return from + (to - from) * Math.min(1, Math.max(0, part));
  }

  #secondsPerPixel() {
    const [from, to] = this.#window ?? this.#all();
    return (to - from) / Math.max(1, (this.canvas.clientWidth || 600) - LABEL);
  }

  /** @param {[number, number] | null} window */
  #show(window) {
    const [first, last] = this.#all();
    this.#window = window && window[1] - window[0] < last - first ? [Math.max(first, window[0]), Math.min(last, window[1])] : null;
    this.redraw();
  }

  /** @param {number} factor @param {number} [around] */
  #zoom(factor, around) {
    const [from, to] = this.#window ?? this.#all();
    const middle = around ?? (from + to) / 2;
    this.#show([middle - (middle - from) * factor, middle + (to - middle) * factor]);
  }

  /** @param {number} seconds */
  #pan(seconds) {
    if (!this.#window) return;
    const [first, last] = this.#all(), [from, to] = this.#window;
    const by = Math.min(last - to, Math.max(first - from, seconds));
    this.#show([from + by, to + by]);
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const [from, to] = this.#window ?? this.#all();
    const step = (to - from) / 5;
    /** @type {Record<string, () => void>} */
    const acts = { "+": () => this.#zoom(0.6), "-": () => this.#zoom(1.7), ArrowLeft: () => this.#pan(-step), ArrowRight: () => this.#pan(step), 0: () => this.#show(null) };
    const act = acts[event.key];
    if (!act) return;
    event.preventDefault();
    event.stopPropagation();
    act();
  }

  /** @param {PointerEvent} event */
  #moved(event) {
    if (this.#dragged !== null) {
      const [from, to] = this.#window ?? this.#all();
      this.#pan(((this.#dragged - event.offsetX) * (to - from)) / Math.max(1, this.canvas.clientWidth - LABEL));
      this.#dragged = event.offsetX;
      return;
    }
    const lanes = this.#lanes(), time = this.#timeAt(event.offsetX), place = Math.floor(event.offsetY / LANE);
    const found = this.#blocks.find(([executor, lane, , start, end]) => lanes.get(`${executor}\n${lane}`) === place && start <= time && time <= end);
    const near = this.#changes.find(({ at }) => Math.abs(at - time) < 4 * this.#secondsPerPixel());
    if (near && !found) return setText(this.tip, `${near.before} → ${near.target} executors, ${near.reason}`);
    setText(this.tip, found ? blockInWords(found, this.#labels.get(found[0]) ?? found[0]) : "");
  }
}

/** @param {Block} block @param {string} executor */
export function blockInWords([, , stage, start, end, tasks, failed, partition, rows], executor) {
  const what = tasks === 1 && partition >= 0 ? `partition ${partition}` : plural(tasks, "task");
  return [`stage ${stage}: ${what}`, failed ? (tasks === 1 ? "failed" : `${failed} failed`) : "", formatSeconds(end - start), rows ? `${formatCount(rows)} rows` : "", `on ${executor}`].filter(Boolean).join(", ");
}
