"""How the page looks, and the few lines of script that draw its charts."""

from __future__ import annotations

__all__ = ["CSS", "SCRIPT"]

CSS = """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --panel: #f6f8fa; --ink: #1c2430; --soft: #5b6776; --line: #dfe4ea;
  --accent: #2463b8; --good: #1a7f4b; --bad: #b3372d; --grid: #e7ebf0; --weights: #3b7dd8;
  --kv: #e07b39;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #12161c; --panel: #1a2028; --ink: #e4e9ef; --soft: #9aa6b4; --line: #2c3540;
    --accent: #7fb0f5; --good: #58c48d; --bad: #f0877c; --grid: #29323d;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif;
}
main { max-width: 1120px; margin: 0 auto; padding: 40px 32px 80px; }
header .kind { color: var(--soft); margin: 0; font-size: 14px; }
h1 { font-size: 30px; line-height: 1.2; margin: 2px 0 14px; letter-spacing: -0.01em; }
.verdict { font-size: 18px; line-height: 1.5; max-width: 62em; margin: 0 0 24px; }
h2 { font-size: 20px; margin: 0 0 4px; letter-spacing: -0.005em; }
h3 { font-size: 15px; margin: 28px 0 2px; }
section { margin-top: 52px; padding-top: 22px; border-top: 1px solid var(--line); }
p { margin: 6px 0; max-width: 78em; }
.soft { color: var(--soft); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(165px, 1fr)); gap: 12px; }
.tile { background: var(--panel); border: 1px solid var(--line); border-radius: 8px;
  padding: 12px 14px; }
.tile .name { color: var(--soft); font-size: 13px; }
.tile .value { font-size: 23px; font-weight: 650; line-height: 1.3; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
.tile .more { color: var(--soft); font-size: 13px; line-height: 1.35; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(300px, 1fr));
  gap: 4px 28px; }
.charts > div { min-width: 0; }
h4 { font-size: 13px; font-weight: 600; margin: 10px 0 0; }
.tiles + p { margin-top: 12px; }
.table { overflow-x: auto; margin: 14px 0; }
table { border-collapse: collapse; width: 100%; font-size: 14px;
  font-variant-numeric: tabular-nums; }
th { text-align: left; color: var(--soft); font-weight: 500; vertical-align: bottom;
  border-bottom: 1px solid var(--line); padding: 5px 14px 5px 0; white-space: nowrap; }
td { border-bottom: 1px solid var(--line); padding: 5px 14px 5px 0; vertical-align: top;
  white-space: nowrap; }
td.number, th.number { text-align: right; }
td.prose { white-space: normal; min-width: 21em; overflow-wrap: anywhere; }
tr.marked td { font-weight: 600; }
tr.marked td:first-child { box-shadow: inset 3px 0 0 var(--accent); padding-left: 10px; }
.figure { margin: 4px 0; }
.samples { display: grid; grid-template-columns: 1fr 1fr; gap: 16px; }
.samples h3 { margin-top: 14px; }
pre { background: var(--panel); border: 1px solid var(--line); border-radius: 8px; margin: 6px 0;
  padding: 12px 14px; overflow-x: auto; font: 13px/1.5 ui-monospace, "SF Mono", Menlo, Consolas,
  "Liberation Mono", monospace; white-space: pre-wrap; overflow-wrap: anywhere; }
pre .prompt { color: var(--soft); }
.fit { display: grid; grid-template-columns: 1fr; gap: 4px; margin: 10px 0; font-size: 14px;
  font-variant-numeric: tabular-nums; }
.fit .chip { margin-top: 8px; font-weight: 600; }
.bar { height: 16px; background: var(--panel); border: 1px solid var(--line); border-radius: 4px;
  overflow: hidden; display: flex; }
.bar .weights { background: var(--weights); } .bar .kv { background: var(--kv); }
.keys { display: flex; flex-wrap: wrap; gap: 2px 16px; margin: 8px 0 0; font-size: 13px;
  color: var(--soft); }
.key { display: inline-flex; align-items: center; gap: 6px; }
.key i { display: inline-block; width: 10px; height: 10px; background: currentColor; }
.key i.block { border-radius: 2px; } .key i.circle { border-radius: 50%; }
.key i.diamond { transform: rotate(45deg) scale(0.85); }
.key i.line, .key i.dots { width: 22px; height: 0; background: none; border-top: 2px solid; }
.key i.dots { border-top-style: dotted; }
.fits { color: var(--good); } .bursts { color: var(--bad); }
ul { padding-left: 20px; margin: 8px 0; } li { margin: 4px 0; max-width: 76em; }
details { margin: 14px 0; } summary { cursor: pointer; color: var(--accent); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 18px; font-size: 14px; }
dt { color: var(--soft); } dd { margin: 0; }
@media (max-width: 720px) {
  main { padding: 24px 16px; } .samples { grid-template-columns: 1fr; }
  h1 { font-size: 25px; overflow-wrap: anywhere; } .verdict { font-size: 16px; }
  .table:has(.prose) thead { display: none; }
  .table:has(.prose) tr { display: block; padding: 8px 0; border-bottom: 1px solid var(--line); }
  .table:has(.prose) table, .table:has(.prose) tbody { display: block; }
  .table:has(.prose) td { display: inline-block; border: 0; padding: 0 6px 0 0;
    white-space: normal; }
  .table:has(.prose) td.prose { display: block; min-width: 0; color: var(--soft); }
  section { margin-top: 36px; } dl { grid-template-columns: 1fr; } dd { margin-bottom: 6px; }
}
@media print { section { break-inside: avoid; } }
"""

SCRIPT = """
(function () {
  var narrow = window.matchMedia("(max-width: 720px)");
  var dark = window.matchMedia("(prefers-color-scheme: dark)");
  function themed(layout) {
    var style = getComputedStyle(document.documentElement);
    function colour(name) { return style.getPropertyValue(name).trim(); }
    var all = JSON.parse(JSON.stringify(layout));
    all.paper_bgcolor = all.plot_bgcolor = "rgba(0,0,0,0)";
    all.font = { family: getComputedStyle(document.body).fontFamily,
                 size: narrow.matches ? 11 : 13, color: colour("--ink") };
    all.hoverlabel = Object.assign({ bgcolor: colour("--panel"), bordercolor: colour("--line"),
                                     font: { color: colour("--ink") } }, all.hoverlabel);
    Object.keys(all).filter(function (key) { return /^[xy]axis/.test(key); })
      .forEach(function (key) {
        all[key] = Object.assign({ gridcolor: colour("--grid"), linecolor: colour("--line"),
                                   zerolinecolor: colour("--line"), zeroline: false }, all[key]);
        if (typeof all[key].title === "string") {
          all[key].title = { text: all[key].title,
                             font: { size: 12, color: colour("--soft") }, standoff: 8 };
        }
      });
    return all;
  }
  function draw() {
    document.querySelectorAll(".figure").forEach(function (place) {
      var figure = JSON.parse(document.getElementById(place.id + "-data").textContent);
      if (narrow.matches) {
        // There is no room for names beside marks; they are shown when a mark is touched.
        figure.data.forEach(function (trace) {
          if (trace.mode === "markers+text") trace.mode = "markers";
        });
      }
      Plotly.react(place, figure.data, themed(figure.layout),
                   { displayModeBar: false, responsive: true });
    });
  }
  draw();
  dark.addEventListener("change", draw);
  narrow.addEventListener("change", draw);
})();
"""
