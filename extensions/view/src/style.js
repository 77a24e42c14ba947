// Colours are JupyterLab's where they are defined, else their fall-backs, so that other front ends look right; by night too.

export const STYLE = `
.fk { --fk-run: var(--jp-brand-color1, #1976d2); --fk-ok: var(--jp-success-color1, #388e3c); --fk-bad: var(--jp-error-color1, #d32f2f);
  --fk-warn: var(--jp-warn-color1, #b26a00); --fk-text: var(--jp-ui-font-color1, CanvasText); --fk-faint: var(--jp-ui-font-color2, GrayText);
  --fk-line: var(--jp-border-color2, rgba(128,128,128,.4)); --fk-back: var(--jp-layout-color2, rgba(128,128,128,.12));
  color: var(--fk-text); font: var(--jp-ui-font-size1, 13px)/1.5 var(--jp-ui-font-family, system-ui, sans-serif);
  border: 1px solid var(--fk-line); border-radius: 4px; padding: 6px 10px; margin: 2px 0; max-width: 1100px; min-width: 0; container-type: inline-size;
  font-variant-numeric: tabular-nums; }
.fk-head { display: flex; gap: 2px 12px; align-items: baseline; }
.fk-title { font-weight: 600; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; min-width: 0; }
.fk-numbers { color: var(--fk-faint); }
.fk-line { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.fk-head button { margin-left: auto; flex: none; }
.fk button { font: inherit; color: inherit; background: none; border: 1px solid var(--fk-line); border-radius: 3px; padding: 0 8px; cursor: pointer; }
.fk button:hover { background: var(--fk-back); }
.fk button:focus-visible, .fk canvas:focus-visible { outline: 2px solid var(--fk-run); outline-offset: 1px; }
.fk-bar { position: relative; height: 8px; background: var(--fk-back); border-radius: 4px; overflow: hidden; margin: 4px 0; }
.fk-bar > i { position: absolute; inset: 0 auto 0 0; background: var(--fk-run); transition: width .1s linear; }
.fk-bar > i + i { background: var(--fk-run); opacity: .35; }
.fk[data-state=succeeded] .fk-whole > i { background: var(--fk-ok); }
.fk[data-state=failed] .fk-whole > i, .fk-bar.fk-failed > i { background: var(--fk-bad); }
.fk-bar.fk-done > i { background: var(--fk-ok); }
.fk-bar.fk-skipped > i, .fk-bar.fk-cancelled > i, .fk[data-state=cancelled] .fk-whole > i { background: var(--fk-faint); opacity: .5; }
.fk-mark { display: inline-block; width: 4px; height: 11px; border-radius: 1px; margin-right: 6px; vertical-align: -1px; }
.fk-tabs { display: flex; flex-wrap: wrap; gap: 4px; margin: 4px 0; }
.fk-tabs button[aria-selected=true] { background: var(--fk-back); font-weight: 600; }
.fk table { border-collapse: collapse; width: 100%; font-size: 12px; margin: 0; }
.fk-scroll { overflow-x: auto; max-height: 320px; overflow-y: auto; }
.fk th { text-align: left; font-weight: 600; color: var(--fk-faint); white-space: nowrap; }
.fk th, .fk td { padding: 1px 8px 1px 0; border: 0; vertical-align: middle; text-align: left; background: none; }
.fk td.fk-n, .fk th.fk-n { text-align: right; white-space: nowrap; }
.fk td.fk-name { max-width: 320px; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.fk td .fk-bar { min-width: 90px; margin: 0; }
.fk-failure { color: var(--fk-bad); white-space: pre-wrap; overflow-wrap: anywhere; margin: 2px 0; }
.fk-warning { color: var(--fk-warn); white-space: pre-wrap; overflow-wrap: anywhere; margin: 2px 0; }
.fk-hint { border-left: 3px solid var(--fk-warn); padding-left: 8px; margin: 4px 0; }
.fk-hint b { font-weight: 600; }
.fk-note { color: var(--fk-warn); }
.fk svg text { fill: var(--fk-text); font-size: 11px; }
.fk svg .fk-edge { stroke: var(--fk-line); fill: none; }
.fk svg .fk-box { fill: var(--fk-back); stroke: var(--fk-line); }
.fk svg .fk-fill { fill: var(--fk-run); opacity: .3; }
.fk svg .fk-done .fk-fill { fill: var(--fk-ok); }
.fk svg .fk-failed .fk-box { stroke: var(--fk-bad); }
.fk svg .fk-skipped, .fk svg .fk-not-run { opacity: .55; }
.fk svg .fk-skipped .fk-fill, .fk svg .fk-cancelled .fk-fill { fill: var(--fk-faint); }
.fk svg .fk-spread { stroke: var(--fk-faint); fill: none; }
.fk svg .fk-middle { fill: var(--fk-run); }
.fk canvas { width: 100%; display: block; cursor: grab; touch-action: pan-y; }
.fk-tip { font-size: 12px; color: var(--fk-faint); min-height: 1.5em; }
.fk-one { border: 0; padding: 0; }
@container (max-width: 520px) {
  .fk-stages thead { display: none; }
  .fk-stages tr { display: flex; flex-wrap: wrap; gap: 0 10px; padding: 3px 0; align-items: baseline; }
  .fk-stages td.fk-name { flex: 1 1 60%; max-width: none; }
  .fk-stages td.fk-tasks { flex: none; order: 1; }
  .fk-stages td.fk-progress { flex: 1 0 100%; order: 2; }
  .fk-stages td.fk-extra { order: 3; color: var(--fk-faint); text-align: left; }
  .fk-stages td.fk-extra::before { content: attr(data-name) " "; }
  .fk-stages td.fk-empty { display: none; }
}
`;
