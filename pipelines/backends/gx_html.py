"""The page of one validation report: self-contained, light, everything escaped."""

from __future__ import annotations

from html import escape

from pipelines.records import Check, ValidationReport

_STYLE = """
:root { --ink: #1d2530; --soft: #5d6b7c; --line: #e2e7ee; --good: #16794a; --bad: #b3261e; --card: #fff; }
* { box-sizing: border-box; }
body { margin: 0; background: #f5f7fa; color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 32px 20px 64px; }
header { background: var(--card); border: 1px solid var(--line); border-left: 6px solid var(--bad); border-radius: 10px;
  padding: 20px 24px; }
header.passed { border-left-color: var(--good); }
h1 { margin: 0 0 4px; font-size: 22px; }
h2 { font-size: 16px; margin: 32px 0 10px; }
p { margin: 0; color: var(--soft); }
.badge { display: inline-block; padding: 1px 10px; border-radius: 999px; color: #fff; font-size: 13px; font-weight: 600;
  vertical-align: 3px; margin-left: 8px; background: var(--bad); }
.badge.passed { background: var(--good); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 18px; margin: 14px 0 0; font-size: 14px; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
code { font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
table { width: 100%; table-layout: fixed; border-collapse: collapse; background: var(--card);
  border: 1px solid var(--line); border-radius: 10px; overflow: hidden; font-size: 14px; }
th, td { text-align: left; vertical-align: top; padding: 9px 12px; border-top: 1px solid var(--line);
  overflow-wrap: anywhere; }
th { border-top: 0; color: var(--soft); font-weight: 600; background: #fafbfd; white-space: nowrap; }
td.mark { font-weight: 700; color: var(--good); white-space: nowrap; }
tr.failed td { background: #fdf3f2; } tr.failed td.mark { color: var(--bad); }
""".strip()


def page(report: ValidationReport) -> str:
    """One HTML page: the verdict, what failed, and every check."""
    state = "passed" if report.passed else "failed"
    title = f"{report.use_case}/{report.table} {report.partition}"
    failed = report.failed
    if report.passed:
        summary = f"All {len(report.checks)} checks passed on {report.rows:,} rows."
    else:
        summary = (
            f"{len(failed)} of {len(report.checks)} checks failed on {report.rows:,} rows. "
            "Nothing of this partition was published; correct what it was made from, then run it again."
        )
    facts = [("Suite", report.suite), ("Suite digest", report.suite_digest), ("Validated bytes", report.digest)]
    facts += [("Source", f"{file.path} ({file.bytes:,} bytes, {file.sha256})") for file in report.sources]
    listed = "".join(f"<dt>{escape(name)}</dt><dd><code>{escape(value)}</code></dd>" for name, value in facts)
    parts = [
        f'<header class="{state}"><h1>{escape(title)}<span class="badge {state}">{state}</span></h1>',
        f"<p>{escape(summary)}</p><dl>{listed}</dl></header>",
        _table("Failed checks", failed) if failed else "",
        _table("Passed checks", tuple(check for check in report.checks if check.passed)),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}: {state}</title><style>{_STYLE}</style></head>"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


def _table(heading: str, checks: tuple[Check, ...]) -> str:
    if not checks:
        return ""
    rows = "".join(
        f'<tr class="{"passed" if check.passed else "failed"}">'
        f'<td class="mark">{"passed" if check.passed else "failed"}</td>'
        f"<td><code>{escape(check.column or '')}</code></td><td>{escape(check.name.replace('_', ' '))}</td>"
        f"<td>{escape(check.observed)}</td><td>{escape(check.allowed)}</td></tr>"
        for check in checks
    )
    widths = "".join(f'<col style="width: {share}%">' for share in (8, 18, 20, 28, 26))
    return (
        f"<h2>{escape(heading)} ({len(checks)})</h2><table><colgroup>{widths}</colgroup><thead><tr><th></th>"
        f"<th>Column</th><th>Check</th><th>Found</th><th>Allowed</th></tr></thead><tbody>{rows}</tbody></table>"
    )
