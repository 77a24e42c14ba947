// Stages as boxes that fill, shuffles as arrows between them.

import { s } from "./dom.js";
import { columns, inWords } from "./model.js";

/** @import {Snapshot, Stage} from "./types.js" */

const WIDTH = 168, HEIGHT = 46, ACROSS = 44, DOWN = 12, EDGE = 6;
const MOST = 60;

/** @param {Snapshot} snapshot @returns {SVGElement | string} */
export function drawDag(snapshot) {
  if (snapshot.stages.length > MOST) return `${snapshot.stages.length} stages: too many to draw; the table lists them.`;
  const placed = columns(snapshot.stages);
  /** @type {Map<number, [number, number]>} */
  const at = new Map();
  placed.forEach((column, x) => column.forEach((stage, y) => at.set(stage.stage, [EDGE + x * (WIDTH + ACROSS), EDGE + y * (HEIGHT + DOWN)])));
  const width = 2 * EDGE + placed.length * (WIDTH + ACROSS) - ACROSS;
  const height = 2 * EDGE + Math.max(1, ...placed.map((each) => each.length)) * (HEIGHT + DOWN) - DOWN;
  const edges = snapshot.stages.flatMap((stage) => stage.parents.map((parent) => arrow(at.get(parent), at.get(stage.stage))));
  const boxes = snapshot.stages.map((stage) => box(stage, /** @type {[number, number]} */ (at.get(stage.stage))));
  return s("svg", { role: "img", width, height, "aria-label": `${snapshot.stages.length} stages` }, ...edges, ...boxes);
}

/** @param {[number, number] | undefined} from @param {[number, number] | undefined} to */
function arrow(from, to) {
  if (!from || !to) return null;
  const [x1, y1, x2, y2] = [from[0] + WIDTH, from[1] + HEIGHT / 2, to[0], to[1] + HEIGHT / 2];
  const bend = (x2 - x1) / 2;
  return s("path", { class: "fk-edge", d: `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2 - 2} ${y2}M${x2 - 7} ${y2 - 4}L${x2} ${y2}L${x2 - 7} ${y2 + 4}` });
}

/** @param {Stage} stage @param {[number, number]} at */
function box(stage, [x, y]) {
  const part = stage.state === "skipped" ? 1 : stage.task_count ? stage.done / stage.task_count : 1;
  const tasks = stage.state === "skipped" ? inWords(stage.state) : `${stage.done}/${stage.task_count} tasks${stage.failed ? `, ${stage.failed} failed` : ""}`;
  return s(
    "g",
    { class: `fk-${stage.state}`, transform: `translate(${x} ${y})` },
    s("title", {}, `stage ${stage.stage}: ${stage.name}\n${stage.operations.join("\n")}\n${inWords(stage.state)}, ${tasks}`),
    s("rect", { class: "fk-box", width: WIDTH, height: HEIGHT, rx: 4 }),
    s("rect", { class: "fk-fill", width: WIDTH * part, height: HEIGHT, rx: 4 }),
    s("text", { x: 8, y: 19, "font-weight": 600 }, cut(`${stage.stage}: ${stage.name}`, 26)),
    s("text", { x: 8, y: 36 }, tasks),
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
