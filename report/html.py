"""The report as one HTML page without scripts. Figures and samples are the files beside it."""

from __future__ import annotations

from html import escape

from ditbench.report.content import Block, Commands, Content, Facts, Figures, Notes, Paragraph, Samples
from ditbench.report.tables.formats import to_html

_STYLE = """
body { font: 16px/1.5 Georgia, 'Libertinus Serif', serif; color: #222;
  max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: .2rem; }
h2 { margin-top: 2.2rem; border-bottom: 1px solid #ddd; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; font-size: .9rem; }
dd { margin: 0; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; border-top: 2px solid #222; border-bottom: 2px solid #222;
  font-size: .85rem; font-variant-numeric: tabular-nums lining-nums; margin: 1rem 0; }
caption, figcaption { text-align: left; font-size: .9rem; color: #444; padding: .3rem 0; }
th { border-bottom: 1px solid #222; font-weight: 600; vertical-align: bottom; }
th, td { padding: .15rem .6rem; white-space: nowrap; }
td.wide { white-space: normal; min-width: 20rem; }
.number { text-align: right; } .text, .wide { text-align: left; }
small { color: #666; }
tr.dominated, tr.failed { color: #888; } tr.baseline { background: #eef4fa; }
.note { font-size: .85rem; color: #555; margin: .2rem 0; }
figure { display: inline-block; vertical-align: top; margin: .5rem 1rem .5rem 0; max-width: 100%; }
figure img { max-width: 100%; }
.samples figure { width: 24rem; } .samples img { width: 100%; }
.notes { background: #f6f6f3; border-left: 3px solid #bbb; padding: .5rem 1rem; font-size: .92rem; }
.notes p { margin: .4rem 0; }
pre { background: #f6f6f6; padding: .4rem .6rem; margin: .1rem 0 .7rem; font-size: .8rem;
  white-space: pre-wrap; overflow-wrap: anywhere; }
"""


def render_html(content: Content) -> str:
    """The whole report; links are relative to the report's folder."""
    title = escape(content.title)
    parts = [
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width">',
        f"<title>{title}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{title}</h1>",
    ]
    if content.description:
        parts.append(f"<p>{escape(content.description)}</p>")
    parts.append(_entries(content.facts))
    for section in content.sections:
        parts.append(f"<h2>{escape(section.title)}</h2>")
        parts += [_block(block) for block in section.blocks]
    return "\n".join([*parts, "</body></html>", ""])


def _entries(entries: tuple[tuple[str, str], ...]) -> str:
    return "<dl>" + "".join(f"<dt>{escape(n)}</dt><dd>{escape(t)}</dd>" for n, t in entries) + "</dl>"


def _block(block: Block) -> str:
    match block:
        case Paragraph(text):
            return f"<p>{escape(text)}</p>"
        case Figures(pictures):
            return "\n".join(
                f'<figure style="width: {p.width_pt:.0f}pt"><img src="{escape(p.name)}.svg" '
                f'alt="{escape(p.alt)}"><figcaption>{escape(p.caption)}</figcaption></figure>'
                for p in pictures
            )
        case Samples(grids, caption):
            images = "".join(
                f'<figure><img src="samples/{escape(g.cell)}.png" alt="samples of {escape(g.cell)}">'
                f"<figcaption>{escape(g.cell)}</figcaption></figure>"
                for g in grids
            )
            return f'<p>{escape(caption)}</p>\n<div class="samples">{images}</div>'
        case Facts(entries):
            return _entries(entries)
        case Notes(entries):
            lines = "".join(f"<p><b>{escape(term)}.</b> {escape(text)}</p>" for term, text in entries)
            return f'<div class="notes">{lines}</div>'
        case Commands(entries):
            return "".join(f"<div>{escape(n)}</div><pre>{escape(command)}</pre>" for n, command in entries)
        case table:
            return f'<div class="scroll">{to_html(table)}</div>'
