// Stages as boxes that fill, shuffles as arrows between them.

import { s } from "./dom.js";
import { formatBytes } from "./format.js";
import { columns, inWords, partDone } from "./model.js";

/** @import {Snapshot, Stage} from "./types.js" */

const HEIGHT = 46, ACROSS = 76, DOWN = 12, EDGE = 6;
/** Of a box: its least and most width, and that of a letter; the same in flowkit/observe/static_view.py. */
const LEAST = 120, MOST_WIDE = 340, LETTER = 6.3;
const MOST = 60;

/** @param {Snapshot} snapshot @returns {SVGElement | string} */
export function drawDag(snapshot) {
  if (snapshot.stages.length > MOST) return `${snapshot.stages.length} stages: too many to draw; the table lists them.`;
  const placed = columns(snapshot.stages);
  const widths = placed.map((column) => Math.min(MOST_WIDE, Math.max(LEAST, ...column.map((each) => 18 + LETTER * title(each).length))));
  const lefts = widths.map((_, place) => EDGE + widths.slice(0, place).reduce((sum, each) => sum + each + ACROSS, 0));
  /** @type {Map<number, [x: number, y: number, width: number]>} */
  const at = new Map();
  placed.forEach((column, x) => column.forEach((stage, y) => at.set(stage.stage, [lefts[x], EDGE + y * (HEIGHT + DOWN), widths[x]])));
  const width = (lefts.at(-1) ?? 0) + (widths.at(-1) ?? 0) + EDGE;
  const height = 2 * EDGE + Math.max(1, ...placed.map((each) => each.length)) * (HEIGHT + DOWN) - DOWN;
  const known = new Map(snapshot.stages.map((each) => [each.stage, each]));
  const edges = snapshot.stages.flatMap((stage) => stage.parents.flatMap((parent) => arrow(at.get(parent), at.get(stage.stage), known.get(parent)?.shuffle_write_bytes ?? 0)));
  const boxes = snapshot.stages.map((stage) => box(stage, /** @type {[number, number, number]} */ (at.get(stage.stage))));
  return s("svg", { role: "img", width, height, "aria-label": `${snapshot.stages.length} stages` }, ...edges, ...boxes);
}

/** @param {Stage} stage */
function title(stage) {
  return `${stage.stage}: ${stage.name}`;
}

/** @param {[number, number, number] | undefined} from @param {[number, number, number] | undefined} to @param {number} bytes */
function arrow(from, to, bytes) {
  if (!from || !to) return [];
  const [x1, y1, x2, y2] = [from[0] + from[2], from[1] + HEIGHT / 2, to[0], to[1] + HEIGHT / 2];
  const bend = (x2 - x1) / 2;
  const path = s("path", { class: "fk-edge", d: `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2 - 2} ${y2}M${x2 - 7} ${y2 - 4}L${x2} ${y2}L${x2 - 7} ${y2 + 4}` });
  return [path, bytes ? s("text", { x: x1 + 6, y: y1 - 5 }, formatBytes(bytes)) : null];
}

/** @param {Stage} stage @param {[number, number, number]} at */
function box(stage, [x, y, width]) {
  const tasks = stage.state === "skipped" || stage.state === "not run" ? inWords(stage.state) : `${stage.done}/${stage.task_count} tasks${stage.failed ? `, ${stage.failed} failed` : ""}`;
  return s(
    "g",
    { class: `fk-${stage.state.replace(" ", "-")}`, transform: `translate(${x} ${y})` },
    s("title", {}, `stage ${stage.stage}: ${stage.name}\n${stage.operations.join("\n")}\n${inWords(stage.state)}`),
    s("rect", { class: "fk-box", width, height: HEIGHT, rx: 4 }),
    s("rect", { class: "fk-fill", width: width * partDone(stage), height: HEIGHT, rx: 4 }),
    s("text", { x: 8, y: 19, "font-weight": 600 }, cut(title(stage), Math.floor((width - 16) / LETTER))),
    s("text", { x: 8, y: 36 }, cut(tasks, Math.floor((width - 16) / LETTER))),
  );
}

/** @param {string} text @param {number} most */
function cut(text, most) {
  return text.length <= most ? text : `${text.slice(0, most - 1)}…`;
}

/**
 * A stage's task times: least to greatest as a line, quartiles as a box, the median as a mark.
 * @param {number[]} durations
 */
export function drawSpread([least, lower, median, upper, greatest]) {
  const width = 84, scale = greatest > 0 ? (width - 4) / greatest : 0;
  const x = (/** @type {number} */ seconds) => 2 + seconds * scale;
  return s(
    "svg",
    { role: "img", width, height: 12, "aria-label": "least, median and greatest task time" },
    s("path", { class: "fk-spread", d: `M${x(least)} 6H${x(greatest)}M${x(least)} 3V9M${x(greatest)} 3V9` }),
    s("rect", { class: "fk-spread", x: x(lower), y: 2, width: Math.max(1, x(upper) - x(lower)), height: 8 }),
    s("rect", { class: "fk-middle", x: x(median) - 1, y: 1, width: 2, height: 10 }),
  );
}
