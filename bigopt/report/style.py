"""The look of the page; inline, so that it needs nothing from elsewhere."""

from __future__ import annotations

CSS = """
:root { color-scheme: light dark; --ink: #1f2430; --muted: #6b7282; --line: #d9dde5; --page: #f6f7f9; --card: #fff;
  --accent: #2563eb; --good: #0e8a62; --bad: #c8322b; --warn: #a56300; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7eaf0; --muted: #98a1b2; --line: #333a47; --page: #12151b;
  --card: #1a1e27; --accent: #7aa7ff; --good: #3ecf9a; --bad: #ff7a70; --warn: #f0b04f; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 24px; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 17px; margin: 34px 0 10px; }
.sub { color: var(--muted); margin: 4px 0 20px; }
.badge { display: inline-block; padding: 1px 10px; border-radius: 99px; font-size: 13px; vertical-align: 3px;
  margin-left: 8px; border: 1px solid currentColor; font-weight: 500; }
.good { color: var(--good); } .bad { color: var(--bad); } .warn { color: var(--warn); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); gap: 12px; }
.card, .panel { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 14px 16px; }
.card b { display: block; font-size: 26px; line-height: 1.25; font-weight: 650; font-variant-numeric: tabular-nums; }
.card span { color: var(--muted); font-size: 13px; overflow-wrap: anywhere; }
.panel { overflow-x: auto; }
.panel + .panel { margin-top: 12px; }
.panel svg { display: block; width: 100%; height: auto; }
.narrow svg { max-width: 760px; margin: 0 auto; }
.panel svg text { font-family: inherit !important; }
.lines { margin: 12px 0 0; padding: 0; list-style: none; }
.lines li { padding: 2px 0; }
.error { border-color: var(--bad); color: var(--bad); margin-bottom: 14px; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; font-variant-numeric: tabular-nums; }
th, td { padding: 7px 10px; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap;
  vertical-align: top; }
tr:last-child > td, tr:last-child > th { border-bottom: 0; }
th { color: var(--muted); font-weight: 500; }
th:first-child, td:first-child { text-align: left; }
td:first-child { font-weight: 600; white-space: normal; overflow-wrap: anywhere; min-width: 145px; }
td small, td:first-child small { display: block; color: var(--muted); font-weight: 400; font-size: 12.5px; }
tr.control td { color: var(--muted); font-style: italic; }
tr.final td { background: color-mix(in srgb, var(--accent) 9%, transparent); }
caption { caption-side: bottom; text-align: left; color: var(--muted); font-size: 13px; padding-top: 8px; }
details { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 10px 16px;
  margin-top: 8px; }
summary { cursor: pointer; font-weight: 500; }
pre { margin: 10px 0 2px; overflow-x: auto; font: 12.5px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
a { color: var(--accent); }
p.hint { color: var(--muted); font-size: 13px; margin: 6px 0 0; }
"""
