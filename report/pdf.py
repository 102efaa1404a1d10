"""The report as a PDF, set by typst from one JSON file. Nothing is fetched; no system font is used."""

from __future__ import annotations

import importlib.util
import json
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

from ditbench.report.content import Block, Commands, Content, Facts, Figures, Notes, Paragraph, Samples
from ditbench.report.tables.formats import to_data

TEMPLATE = Path(__file__).with_name("template.typ")


class NoPdf(Exception):
    """The PDF cannot be made here; ``str()`` is one line that says why."""


def render_pdf(content: Content, date: datetime | None) -> bytes:
    """The PDF's bytes, a function of ``content`` and ``date`` alone. Raises NoPdf without a working typst."""
    if importlib.util.find_spec("typst") is None:
        raise NoPdf("no PDF: the Python package 'typst' is not installed (report.md and report.html are complete)")
    import typst

    with tempfile.TemporaryDirectory(prefix="ditbench-report-") as folder:
        root = Path(folder)
        data = _data(content, date, root)
        (root / "data.json").write_text(json.dumps(data, ensure_ascii=False, allow_nan=False))
        (root / "main.typ").write_bytes(TEMPLATE.read_bytes())
        try:
            return bytes(
                typst.compile(
                    root / "main.typ",
                    root=root,
                    ignore_system_fonts=True,
                    # Not now: a run without records has no date, and its report must not have one either.
                    timestamp=int(date.timestamp()) if date else 0,
                )
            )
        except typst.TypstError as error:
            line = " ".join(str(error).split())
            raise NoPdf(f"no PDF: typst could not set it: {line} (report.md and report.html are complete)") from None


def _data(content: Content, date: datetime | None, root: Path) -> dict[str, Any]:
    return {
        "title": content.title,
        "description": content.description,
        "date": [date.year, date.month, date.day] if date else None,
        "facts": _pairs(content.facts),
        "sections": [
            {"title": section.title, "blocks": [_block(block, root) for block in section.blocks]}
            for section in content.sections
        ],
    }


def _pairs(entries: tuple[tuple[str, str], ...]) -> list[dict[str, str]]:
    return [{"name": name, "text": text} for name, text in entries]


def _block(block: Block, root: Path) -> dict[str, Any]:
    """A block as plain data; its images go to files under ``root``."""
    match block:
        case Paragraph(text):
            return {"type": "paragraph", "text": text}
        case Figures(pictures):
            for picture in pictures:
                (root / f"{picture.name}.svg").write_bytes(picture.svg)
            return {
                "type": "figures",
                "items": [
                    {"file": f"{p.name}.svg", "caption": p.caption, "alt": p.alt, "width": p.width_pt} for p in pictures
                ],
            }
        case Samples(grids, caption):
            for place, grid in enumerate(grids):
                (root / f"samples-{place}.png").write_bytes(grid.png)
            items = [
                {"file": f"samples-{place}.png", "cell": g.cell, "wrong": g.wrong, "shown": g.shown}
                for place, g in enumerate(grids)
            ]
            return {"type": "samples", "caption": caption, "items": items}
        case Facts(entries):
            return {"type": "facts", "items": _pairs(entries)}
        case Notes(entries):
            return {"type": "notes", "items": _pairs(entries)}
        case Commands(entries):
            return {"type": "commands", "items": _pairs(entries)}
        case table:
            return to_data(table)
