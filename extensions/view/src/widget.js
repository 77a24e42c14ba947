// Under a cell: the panel, fed by the kernel over the widget's comm. What anywidget loads.

import { Panel } from "./panel.js";

/**
 * @param {{model: any, el: HTMLElement}} host
 * @returns {() => void}
 */
function render({ model, el }) {
  const panel = new Panel(el, {
    cancel: () => model.send({ op: "cancel" }),
    resync: (version) => model.send({ op: "resync", version }),
  });
  const hear = (/** @type {any} */ message) => {
    if (message.snapshot) panel.show(message.snapshot, message.now);
    for (const delta of message.deltas ?? []) panel.apply(delta, message.now);
    if (message.delta) panel.apply(message.delta, message.now);
    if (message.timeline) panel.addTimeline(message.timeline);
  };
  model.on("msg:custom", hear);
  // The whole as it was when this page asked for it; deltas since may be in between, then a resync follows.
  const now = model.get("whole");
  if (now?.snapshot) hear(now);
  return () => {
    model.off("msg:custom", hear);
    panel.dispose();
  };
}

export default { render };
