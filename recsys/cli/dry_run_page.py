"""The report of `recsys events check` for people: as lines, and as one HTML page without scripts."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from recsys.models.rankers import LABELS

BAR_HEIGHT, LABEL_WIDTH, PLOT_WIDTH, VALUE_WIDTH = 24, 190, 380, 170
COLUMN_PLOT = (760, 150)
MAX_COLUMNS = 120


def text_of(report: dict[str, Any]) -> str:
    """The report as lines for a terminal."""
    sequences, signal, source = report["sequences"], report["signal"], report["source"]
    lines = [_headline(report), "", *_pairs(report)]
    lines += [
        f"  dropped {one['rows']:>12,}  {one['example'] or one['reason']}"
        for one in report["dropped"]
    ]
    lines += ["", "events per sequence"]
    lines += _bars([(one["length"], one["sequences"]) for one in sequences["lengths"]])
    lines += ["time between events"]
    lines += _bars([(one["gap"], one["steps"]) for one in sequences["gaps"]])
    if signal["results"]:
        lines += [
            f"next item among all {signal['catalogue']:,} items, {signal['positions']:,} positions "
            "(95% intervals)",
            f"  {'':22}{'recall@20':>22}{'MRR@20':>24}",
        ]
        for name, row in sorted(signal["results"].items(), key=lambda one: -one[1]["recall@20"]):
            cells = "".join(
                f"{row[m]:>12.3f} ({row[m + '_low']:.3f}-{row[m + '_high']:.3f})"
                for m in ("recall@20", "mrr@20")
            )
            lines.append(f"  {LABELS.get(name, name):<22}{cells}")
        lines.append("")
    lines += [f"note: {words}: {rows:,} rows" for words, rows in report["notes"].items()]
    for warning in source.get("warnings", []):
        lines.append(f"note: {warning}")
    for statement in source.get("create_index", []):
        lines.append(f"index: {statement}")
    if source.get("grant"):
        lines.append(f"access: {source['grant']}")
    lines += [f"verdict: {signal['verdict']}"]
    return "\n".join(lines)


def _headline(report: dict[str, Any]) -> str:
    source = report["source"]
    kinds = {"file": "file", "own": "the service's own table", "mapped": "mapped table"}
    return f"{kinds[source['kind']]} {source['name']}, read in {report['read_seconds']:.1f} s"


def _pairs(report: dict[str, Any]) -> list[str]:
    return [f"{name:<34}{value}" for name, value in _figures(report)]


def _figures(report: dict[str, Any]) -> list[tuple[str, str]]:
    sequences, signal = report["sequences"], report["signal"]
    about = "about " if report["users_are_estimated"] else ""
    found = [
        ("rows read", f"{report['rows_read']:,}"),
        ("rows dropped", f"{report['rows_dropped']:,}"),
        ("users and sessions", f"{about}{report['users']:,}"),
        ("items", f"{report['items']:,}"),
        ("first event", report["first_event_at"] or "-"),
        ("last event", f"{report['last_event_at'] or '-'} ({report['days']:g} days)"),
        ("median events per sequence", f"{sequences['median_length']:g}"),
        ("sequences of one event", f"{sequences['of_one_event']:.1%}"),
        ("repeated item", f"{sequences['same_item_again_share']:.1%} of steps"),
        ("return to an earlier item", f"{sequences['earlier_item_again_share']:.1%} of steps"),
        ("steps with tied timestamps", f"{sequences['tied_share']:.1%}"),
        (
            "bot-like users",
            f"{sequences['bot_like_users']:,} in the sample, with "
            f"{sequences['bot_like_event_share']:.1%} of events",
        ),
        ("longest silence", f"{sequences['longest_silence_hours']:,.1f} hours"),
        ("event types", ", ".join(f"{k} {v:,}" for k, v in sequences["event_types"].items())),
    ]
    if "never_seen_share" in signal:
        found.append(("next items never seen before", f"{signal['never_seen_share']:.1%}"))
    for label, sample in (("sequences", report["sample"]), ("signal", signal["sample"])):
        if sample["share_of_users"] < 1:
            share = f"{sample['share_of_users']:.2%} of users, {sample['events']:,} events"
            found.append((f"sample for {label}", share))
    return found


def _bars(rows: Sequence[tuple[str, int]]) -> list[str]:
    most = max((count for _, count in rows), default=0) or 1
    return [
        f"  {name:<14}{count:>12,}  {'█' * round(30 * count / most)}" for name, count in rows
    ] + [""]


def html_of(report: dict[str, Any]) -> str:
    """The report as one page that asks nothing of any other file or host."""
    source, signal, sequences = report["source"], report["signal"], report["sequences"]
    parts = [f"<h1>{escape(_headline(report))}</h1>"]
    mark = {True: "good", False: "poor", None: "open"}[signal["carries_signal"]]
    parts.append(f'<p class="verdict {mark}">{escape(_capital(signal["verdict"]))}.</p>')
    if signal["results"]:
        rows = sorted(signal["results"].items(), key=lambda one: -one[1]["recall@20"])
        for metric, title in (("recall@20", "Next item among the first 20"), ("mrr@20", "MRR@20")):
            bars = [
                (LABELS.get(name, name), row[metric], row[f"{metric}_low"], row[f"{metric}_high"])
                for name, row in rows
            ]
            said = f"{signal['positions']:,} next items, among all {signal['catalogue']:,} items; "
            parts.append(_section(title, _intervals(bars), said + "lines are 95% intervals"))
    figures = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>"
        for name, value in _figures(report)
    )
    parts.append(_section("The log", f"<table>{figures}</table>"))
    if report["dropped"]:
        reasons = "".join(
            f"<tr><td>{one['rows']:,}</td><td>{escape(one['reason'])}</td>"
            f"<td><code>{escape(one['example'])}</code></td></tr>"
            for one in report["dropped"]
        )
        head = "<tr><th>rows</th><th>reason</th><th>example</th></tr>"
        parts.append(_section("Dropped rows", f"<table>{head}{reasons}</table>"))
    lengths = [(one["length"], one["sequences"]) for one in sequences["lengths"]]
    parts.append(_section("Events per sequence", _counts(lengths)))
    gaps = [(one["gap"], one["steps"]) for one in sequences["gaps"]]
    parts.append(_section("Time between events", _counts(gaps)))
    parts.append(_section("Events by day", _days(report["by_day"])))
    parts.append(_mapping(source))
    style = _STYLE
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>events check: {escape(source['name'])}</title><style>{style}</style></head>"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _section(title: str, inner: str, note: str = "") -> str:
    said = f'<p class="note">{escape(note)}</p>' if note else ""
    return f"<section><h2>{escape(title)}</h2>{inner}{said}</section>"


def _mapping(source: dict[str, Any]) -> str:
    if source["kind"] != "mapped":
        return ""
    rows = "".join(
        f"<tr><th>{escape(meaning)}</th><td><code>{escape(one['name'])}</code></td>"
        f"<td>{escape(one['type'] or one['read_as'])}</td></tr>"
        for meaning, one in source["columns"].items()
    )
    refused = source["serving_refused"]
    served = f"not yet: {refused}" if refused else "possible: an index finds a user's newest events"
    notes = "".join(f"<li>{escape(one)}</li>" for one in source["warnings"])
    statements = "".join(f"<pre>{escape(one)}</pre>" for one in source["create_index"])
    return _section(
        "Mapping",
        f"<table>{rows}</table><p>Serving from it: {escape(served)}</p><ul>{notes}</ul>"
        f"{statements}<p>Required access:</p><pre>{escape(source['grant'])}</pre>",
    )


def _svg(width: int, height: int, inner: str, label: str) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">{inner}</svg>'
    )


def _intervals(rows: Sequence[tuple[str, float, float, float]]) -> str:
    """Bars with the interval of each as a line across its end."""
    most = max((high for *_, high in rows), default=0.0) or 1.0
    inner = []
    for at, (name, value, low, high) in enumerate(rows):
        y, middle = at * BAR_HEIGHT, at * BAR_HEIGHT + BAR_HEIGHT / 2
        x = [LABEL_WIDTH + PLOT_WIDTH * part / most for part in (value, low, high)]
        inner.append(
            f'<text x="{LABEL_WIDTH - 8}" y="{middle + 4}" text-anchor="end">{escape(name)}</text>'
            f'<rect x="{LABEL_WIDTH}" y="{y + 4}" width="{x[0] - LABEL_WIDTH:.1f}" height="16"/>'
            f'<line x1="{x[1]:.1f}" x2="{x[2]:.1f}" y1="{middle}" y2="{middle}"/>'
            f'<text x="{x[2] + 8:.1f}" y="{middle + 4}">{value:.3f} ({low:.3f}-{high:.3f})</text>'
        )
    width = LABEL_WIDTH + PLOT_WIDTH + VALUE_WIDTH
    return _svg(width, len(rows) * BAR_HEIGHT, "".join(inner), "figures of each ranking")


def _counts(rows: Sequence[tuple[str, int]]) -> str:
    most = max((count for _, count in rows), default=0) or 1
    inner = []
    for at, (name, count) in enumerate(rows):
        y, size = at * BAR_HEIGHT, PLOT_WIDTH * count / most
        inner.append(
            f'<text x="{LABEL_WIDTH - 8}" y="{y + 16}" text-anchor="end">{escape(name)}</text>'
            f'<rect x="{LABEL_WIDTH}" y="{y + 4}" width="{size:.1f}" height="16"/>'
            f'<text x="{LABEL_WIDTH + size + 8:.1f}" y="{y + 16}">{count:,}</text>'
        )
    width = LABEL_WIDTH + PLOT_WIDTH + VALUE_WIDTH
    return _svg(width, len(rows) * BAR_HEIGHT, "".join(inner), "how often each is found")


def _days(days: Sequence[dict[str, Any]]) -> str:
    """Columns of events by day; of many days, of several together."""
    if not days:
        return "<p>none</p>"
    step = -(-len(days) // MAX_COLUMNS)
    groups = [days[at : at + step] for at in range(0, len(days), step)]
    counts = [sum(day["events"] for day in group) for group in groups]
    width, height = COLUMN_PLOT
    each = width / len(counts)
    inner = []
    for at, (group, count) in enumerate(zip(groups, counts, strict=True)):
        tall = (height - 24) * count / max(counts)
        inner.append(
            f'<rect x="{at * each:.1f}" y="{height - 20 - tall:.1f}" width="{max(1.0, each - 1):.1f}" '
            f'height="{tall:.1f}"><title>{escape(group[0]["day"])}: {count:,}</title></rect>'
        )
    inner.append(f'<text x="0" y="{height - 4}">{escape(days[0]["day"])}</text>')
    last = escape(days[-1]["day"])
    inner.append(f'<text x="{width}" y="{height - 4}" text-anchor="end">{last}</text>')
    return _svg(width, height, "".join(inner), "events by day")


_STYLE = """
:root { color-scheme: light dark; --text: #1b1f24; --soft: #57606a; --back: #ffffff; --card: #f6f8fa;
  --line: #d0d7de; --bar: #2f6fdf; --mark: #0a2f6b; --good: #116329; --poor: #9a3412; }
@media (prefers-color-scheme: dark) { :root { --text: #e6edf3; --soft: #9aa4af; --back: #0d1117;
  --card: #161b22; --line: #30363d; --bar: #4c8dff; --mark: #dbe9ff; --good: #56d364; --poor: #ffa657; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--text);
  font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 860px; margin: 0 auto; padding: 24px 16px; }
h1 { font-size: 22px; overflow-wrap: anywhere; } h2 { font-size: 16px; margin: 0 0 12px; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 16px;
  margin: 16px 0; overflow-x: auto; }
.verdict { font-size: 18px; font-weight: 600; } .good { color: var(--good); } .poor { color: var(--poor); }
.note { color: var(--soft); margin: 8px 0 0; }
svg { width: 100%; min-width: 560px; height: auto; display: block; } svg text { fill: var(--text);
  font-size: 13px; } svg rect { fill: var(--bar); } svg line { stroke: var(--mark); stroke-width: 2; }
table { border-collapse: collapse; } th, td { text-align: left; padding: 4px 16px 4px 0;
  vertical-align: top; } th { font-weight: 500; color: var(--soft); }
pre { background: var(--back); border: 1px solid var(--line); border-radius: 6px; padding: 8px 12px;
  white-space: pre-wrap; overflow-wrap: anywhere; }
"""
