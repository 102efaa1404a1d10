"""The report as Markdown, for reading in a repository. Figures and samples are linked, not embedded."""

from __future__ import annotations

from ditbench.report.content import Block, Commands, Content, Facts, Figures, Notes, Paragraph, Samples
from ditbench.report.tables.formats import to_markdown


def render_markdown(content: Content) -> str:
    """The whole report; links are relative to the report's folder."""
    parts = [f"# {content.title}"]
    if content.description:
        parts.append(content.description)
    parts.append("\n".join(f"- {name}: {text}" for name, text in content.facts))
    for section in content.sections:
        parts.append(f"## {section.title}")
        parts += [_block(block) for block in section.blocks]
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def _block(block: Block) -> str:
    match block:
        case Paragraph(text):
            return text
        case Figures(pictures):
            return "\n\n".join(f"![{p.alt}]({p.name}.svg)\n\n*{p.caption}*" for p in pictures)
        case Samples(grids, caption):
            images = "\n\n".join(f"{g.cell}\n\n![samples of {g.cell}](samples/{g.cell}.png)" for g in grids)
            return f"*{caption}*\n\n{images}"
        case Facts(entries):
            rows = "\n".join(f"| {name} | {text.replace('|', chr(92) + '|')} |" for name, text in entries)
            return f"| | |\n|:---|:---|\n{rows}"
        case Notes(entries):
            return "\n".join(f"- **{term}.** {text}" for term, text in entries)
        case Commands(entries):
            return "\n\n".join(f"{name}\n\n```sh\n{command}\n```" for name, command in entries)
        case table:
            return to_markdown(table)
