"""How the page of a run looks."""

from __future__ import annotations

__all__ = ["STYLE"]

STYLE = """
:root { color-scheme: light dark; --ink: #1f2933; --soft: #5d6b76; --line: #dfe4e8; --paper: #f6f7f9; --card: #fff;
  --good: #1a7f4b; --bad: #b3261e; --warn: #9a6700; --accent: #2f6690; --goodbg: #e3f4ea; --badbg: #fbe6e4;
  --plain: #e9edf0; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e9ed; --soft: #9aa8b3; --line: #333d46; --paper: #14191d;
  --card: #1c2329; --good: #5bcb8f; --bad: #ff8a80; --warn: #e2b35a; --accent: #7fb6e0; --goodbg: #17382a;
  --badbg: #452220; --plain: #2a333b; } }
* { box-sizing: border-box; }
body { margin: 0; font: 14px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, Helvetica, Arial, sans-serif;
  color: var(--ink); background: var(--paper); }
main { max-width: 1240px; margin: 0 auto; padding: 24px 24px 64px; }
h1 { font-size: 24px; margin: 0 0 4px; overflow-wrap: anywhere; } h2 { font-size: 18px; margin: 36px 0 8px;
  overflow-wrap: anywhere; }
h3 { font-size: 15px; margin: 20px 0 8px; } h4 { font-size: 13px; margin: 0 0 6px; overflow-wrap: anywhere; }
p { margin: 4px 0 12px; } ul { margin: 6px 0 12px; padding-left: 20px; } li { overflow-wrap: anywhere; }
.soft { color: var(--soft); } span.soft { font-size: 12px; } code { font-size: 12px; overflow-wrap: anywhere; }
.pill { font-size: 13px; border-radius: 999px; padding: 3px 12px; vertical-align: middle; white-space: nowrap; }
.pill.ok { color: var(--good); background: var(--goodbg); } .pill.bad { color: var(--bad); background: var(--badbg); }
.problems { list-style: none; padding: 0; } .problems li { background: var(--badbg); border-left: 4px solid
  var(--bad);
  border-radius: 4px; padding: 8px 12px; margin: 6px 0; }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 8px; margin: 0 0
  18px; }
table { border-collapse: collapse; width: 100%; font-size: 13px; }
th, td { text-align: left; vertical-align: top; padding: 8px 10px; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; } tbody tr:last-child td { border-bottom: 0; }
th.n, td.n { text-align: right; } td.n { white-space: nowrap; font-variant-numeric: tabular-nums; }
.tag { border-radius: 4px; padding: 1px 8px; font-size: 12px; white-space: nowrap; background: var(--plain); color:
  var(--soft); }
.tag.regression { color: var(--bad); background: var(--badbg); font-weight: 600; } .tag.worse { color: var(--warn); }
.tag.better { color: var(--good); background: var(--goodbg); }
svg.interval { width: 200px; max-width: 100%; height: 26px; display: block; }
svg .margin { fill: var(--badbg); } svg .zero { stroke: var(--soft); stroke-dasharray: 2 2; }
svg .bar { stroke: var(--accent); stroke-width: 3; } svg .end { stroke: var(--accent); stroke-width: 2; }
svg circle { fill: var(--accent); } svg.regression .bar, svg.regression .end { stroke: var(--bad); }
svg.regression circle { fill: var(--bad); } svg.better .bar, svg.better .end { stroke: var(--good); }
svg.better circle { fill: var(--good); } svg.worse .bar, svg.worse .end { stroke: var(--warn); }
svg.worse circle { fill: var(--warn); }
.cards { display: flex; flex-wrap: wrap; gap: 12px; margin: 12px 0; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 10px 16px; min-width:
  120px; }
.card b { display: block; font-size: 22px; line-height: 1.2; } .card span { color: var(--soft); font-size: 12px; }
details.case { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 10px 14px;
  margin: 0 0 10px; }
summary { cursor: pointer; overflow-wrap: anywhere; } .question { font-weight: 600; margin: 8px 0; white-space:
  pre-wrap;
  overflow-wrap: anywhere; } .reference { white-space: pre-wrap; overflow-wrap: anywhere; }
.flips li { color: var(--warn); } .sides { display: grid; grid-template-columns: 1fr 1fr; gap: 14px; }
.side { min-width: 0; border: 1px solid var(--line); border-radius: 6px; padding: 10px 12px; }
pre { margin: 0 0 8px; font: inherit; white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: isolate; }
.checks { list-style: none; padding: 0; font-size: 12px; } .checks .met { color: var(--good); }
.checks .unmet { color: var(--bad); } .checks .met::before { content: "\\2713  "; } .checks .unmet::before {
  content: "\\2717  "; }
.figures { font-size: 12px; overflow-wrap: anywhere; }
@media (max-width: 720px) { main { padding: 14px 12px 48px; } .sides { grid-template-columns: minmax(0, 1fr); }
  .scroll { background: none; border: 0; overflow: visible; } thead { display: none; }
  table, tbody, tr { display: block; } tr { background: var(--card); border: 1px solid var(--line); border-radius:
  8px;
    margin: 0 0 10px; padding: 6px 4px; }
  td, td.n { display: flex; gap: 12px; text-align: left; white-space: normal; border: 0; padding: 4px 8px; }
  td > div { min-width: 0; overflow-wrap: anywhere; flex: 1; }
  td::before { content: attr(data-label); color: var(--soft); font-size: 12px; flex: 0 0 96px; }
  td[data-label=""]::before { content: "verdict"; } }
@media print { .scroll, .case { break-inside: avoid; } }
"""
