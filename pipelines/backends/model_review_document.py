"""What a reviewer reads, as blocks: written once, rendered as Markdown and as one HTML file that asks for nothing.

Every word that comes from a spec, a row, a gate or an error is escaped by the renderers, and by nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.backends.model_review_svg import Figure, safe


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    words: str


@dataclass(frozen=True)
class Items:
    """A list."""

    lines: Sequence[str]


@dataclass(frozen=True)
class Code:
    """A command to type."""

    command: str


@dataclass(frozen=True)
class Pairs:
    """Names and what they stand for."""

    pairs: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Grid:
    """A table. The first column names the row; the others are figures unless `words` says so."""

    heads: Sequence[str]
    lines: Sequence[Sequence[str]]
    words: frozenset[int] = frozenset()
    """Columns of text, by place from 0."""
    bad: frozenset[int] = frozenset()
    """Lines to mark, by place from 0."""


@dataclass(frozen=True)
class Pictures:
    """Charts, beside each other where there is room."""

    figures: Sequence[Figure]


@dataclass(frozen=True)
class Link:
    """A file beside the page, or an address that the installation gave."""

    words: str
    to: str


Block = Text | Items | Code | Pairs | Grid | Pictures | Link


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """A whole page."""

    title: str
    state: str
    """A word or two beside the title, such as `passed`."""
    good: bool
    lead: Sequence[Block]
    sections: Sequence[Section]

    @property
    def figures(self) -> list[Figure]:
        """Every chart, in order."""
        blocks = [*self.lead, *(block for section in self.sections for block in section.blocks)]
        return [figure for block in blocks if isinstance(block, Pictures) for figure in block.figures]


# -- Markdown --------------------------------------------------------------------------------------------------------

#: What Markdown would read as its own; an underscore within a word is none of it.
_MARKS = re.compile(r"([\\`*~|\[\]#!])|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
#: What begins a list or a heading's underline.
_LEADING = re.compile(r"^(\d*)(?=[-+.)](?:\s|$)|-+$|=+$)")


def markdown(page: Page) -> str:
    """The page without pictures: what each shows is said in words."""
    parts = [f"# {_md(page.title)}", f"**{_md(page.state)}**", *(_block_md(block) for block in page.lead)]
    for section in page.sections:
        parts += [f"## {_md(section.title)}", *(_block_md(block) for block in section.blocks)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _md(words: str) -> str:
    plain = safe(words.strip()).replace("&quot;", '"').replace("&#x27;", "'")
    text = _MARKS.sub(lambda found: "\\" + found.group(), plain)
    # The entities' own number sign is no heading.
    text = text.replace("&\\#", "&#")
    return _LEADING.sub(lambda found: found.group(1) + "\\", text, count=1)


def _cell(words: str) -> str:
    return _md(words) or " "


def _block_md(block: Block) -> str:
    if isinstance(block, Text):
        return _md(block.words)
    if isinstance(block, Items):
        return "\n".join(f"- {_md(line)}" for line in block.lines)
    if isinstance(block, Code):
        return "    " + block.command.replace("\n", " ")
    if isinstance(block, Pairs):
        return "\n".join(f"- **{_md(name)}**: {_md(value)}" for name, value in block.pairs)
    if isinstance(block, Grid):
        rule = ["---", *("---" if place in block.words else "---:" for place in range(1, len(block.heads)))]
        lines = [[_cell(head) for head in block.heads], rule, *([_cell(cell) for cell in line] for line in block.lines)]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)
    if isinstance(block, Pictures):
        return "\n".join(f"- *{_md(figure.title)}*: {_md(figure.alt)}" for figure in block.figures)
    # A link beside the page leads nowhere from a registry's description.
    return "" if not block.to.startswith("http") else f"[{_md(block.words)}](<{safe(block.to)}>)"


# -- HTML ------------------------------------------------------------------------------------------------------------


def html(page: Page) -> str:
    """One file: no script, nothing from elsewhere."""
    state = "passed" if page.good else "failed"
    parts = [
        f'<header class="{state}"><h1>{safe(page.title)} <span class="badge {state}">{safe(page.state)}</span></h1>',
        *(_block_html(block) for block in page.lead),
        "</header>",
    ]
    for place, section in enumerate(page.sections):
        parts.append(f'<section aria-labelledby="part{place}"><h2 id="part{place}">{safe(section.title)}</h2>')
        parts += [_block_html(block) for block in section.blocks]
        parts.append("</section>")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{safe(page.title)}: {safe(page.state)}</title><style>{_STYLE}</style></head>"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


def _block_html(block: Block) -> str:
    if isinstance(block, Text):
        return f"<p>{safe(block.words)}</p>"
    if isinstance(block, Items):
        return f"<ul>{''.join(f'<li>{safe(line)}</li>' for line in block.lines)}</ul>"
    if isinstance(block, Code):
        return f"<pre><code>{safe(block.command)}</code></pre>"
    if isinstance(block, Pairs):
        told = "".join(f"<dt>{safe(name)}</dt><dd>{safe(value)}</dd>" for name, value in block.pairs)
        return f"<dl>{told}</dl>"
    if isinstance(block, Grid):
        return _table(block)
    if isinstance(block, Pictures):
        told = "".join(f"<figure><figcaption>{safe(one.title)}</figcaption>{one.svg}</figure>" for one in block.figures)
        return f'<div class="plots">{told}</div>'
    return f'<p><a href="{safe(block.to)}" rel="noreferrer">{safe(block.words)}</a></p>'


def _table(grid: Grid) -> str:
    def kind(place: int) -> str:
        return ' class="words"' if place in grid.words else ""

    head = "".join(f'<th scope="col"{kind(place)}>{safe(name)}</th>' for place, name in enumerate(grid.heads))
    lines = []
    for row, line in enumerate(grid.lines):
        cells = "".join(f"<td{kind(place)}>{safe(cell)}</td>" for place, cell in enumerate(line[1:], 1))
        mark = ' class="failed"' if row in grid.bad else ""
        lines.append(f'<tr{mark}><th scope="row">{safe(line[0])}</th>{cells}</tr>')
    return (
        f'<div class="wide" tabindex="0" role="group" aria-label="{safe(grid.heads[0] or "table")}"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


_STYLE = """
:root { --ink: #1d2530; --soft: #5d6b7c; --line: #e2e7ee; --good: #16794a; --bad: #b3261e; --card: #fff; }
* { box-sizing: border-box; }
body { margin: 0; background: #f5f7fa; color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 32px 20px 64px; }
header { background: var(--card); border: 1px solid var(--line); border-left: 6px solid var(--bad); border-radius: 10px;
  padding: 20px 24px; }
header.passed { border-left-color: var(--good); }
h1 { margin: 0 0 8px; font-size: 22px; overflow-wrap: anywhere; }
h2 { font-size: 17px; margin: 36px 0 10px; }
p, ul { margin: 0 0 10px; max-width: 52rem; overflow-wrap: anywhere; } ul { padding-left: 22px; }
.badge { display: inline-block; padding: 1px 10px; border-radius: 999px; color: #fff; font-size: 13px; font-weight: 600;
  vertical-align: 3px; background: var(--bad); }
.badge.passed { background: var(--good); }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 4px 18px; margin: 0 0 12px; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
code { font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 10px 14px; margin: 0 0 12px;
  white-space: pre-wrap; overflow-wrap: anywhere; }
.wide { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 10px; margin: 0 0 14px;
  max-width: max-content; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { text-align: right; vertical-align: top; padding: 7px 12px; border-top: 1px solid var(--line);
  white-space: nowrap; }
th:first-child, .words { text-align: left; }
td.words { white-space: normal; min-width: 5rem; overflow-wrap: break-word; }
td.words:last-child { min-width: 16rem; }
thead th { border-top: 0; color: var(--soft); font-weight: 600; background: #fafbfd; }
tbody th { font-weight: 400; min-width: 6rem; white-space: normal; overflow-wrap: break-word; }
tr.failed th, tr.failed td { background: #fdf3f2; } tr.failed .words { color: var(--bad); }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 400px), 1fr)); gap: 14px;
  margin: 0 0 14px; }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 12px 14px; }
figcaption { font-weight: 600; font-size: 14px; margin-bottom: 6px; overflow-wrap: anywhere; }
svg { display: block; width: 100%; height: auto; max-width: 560px; }
@media (max-width: 500px) { main { padding: 14px 10px 40px; } header { padding: 14px; }
  dl { grid-template-columns: minmax(0, 1fr); } dd { margin-bottom: 6px; } }
""".strip()
