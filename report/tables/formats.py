"""Renders a table to CSV, Markdown, LaTeX, HTML, and plain data for the typst template."""

from __future__ import annotations

import csv
import html
import io
from typing import Any

from ditbench.report.numbers import MINUS
from ditbench.report.tables.table import Column, Raw, Table, Value

NOTHING = "–"


def to_csv(table: Table, with_ends: bool = True) -> str:
    """Full-precision CSV with '\\n' line ends; missing values are empty.

    ``with_ends`` adds ``KEY_low`` and ``KEY_high`` after every column that has intervals. A column with words
    beside its entries ('cost only') is followed by ``KEY_tag``.
    """
    heads: list[str] = []
    columns: list[list[Raw]] = []
    for column in table.columns:
        heads.append(column.key)
        columns.append([value.raw for value in column.values])
        if any(value.tag for value in column.values):
            heads.append(f"{column.key}_tag")
            columns.append([value.tag for value in column.values])
        if with_ends and column.has_ends:
            heads += [f"{column.key}_low", f"{column.key}_high"]
            columns.append([value.low for value in column.values])
            columns.append([value.high for value in column.values])
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(heads)
    for row in zip(*columns, strict=True):
        writer.writerow([_plain(raw) for raw in row])
    return stream.getvalue()


def _plain(raw: Raw) -> str:
    if raw is None:
        return ""
    if isinstance(raw, bool):
        return "true" if raw else "false"
    return repr(raw) if isinstance(raw, float) else str(raw)


def _rows(table: Table) -> list[tuple[Value, ...]]:
    return list(zip(*(column.values for column in table.columns), strict=True))


def _head(column: Column) -> str:
    return f"{column.title} [{column.unit}]" if column.unit else column.title


def _words(value: Value) -> str:
    text = f"{value.shown} {value.interval}".strip()
    return f"{text} ({value.tag})" if value.tag else text


def to_markdown(table: Table) -> str:
    """A pipe table with its caption above and its notes below."""

    def line(cells: list[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    lines = [f"*{table.caption}*", "", line([_head(column) for column in table.columns])]
    lines.append("|" + "|".join("---:" if column.numeric else ":---" for column in table.columns) + "|")
    lines += [line([_words(value) or NOTHING for value in row]) for row in _rows(table)]
    lines += [line_ for note in table.notes for line_ in ("", note)]
    return "\n".join(lines) + "\n"


_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "×": r"$\times$",
    "⁻": r"$^{-}$",
    "³": r"$^{3}$",
    MINUS: "$-$",
    "–": "--",
    "…": r"\ldots{}",
    "é": r"\'e",
    "↓": r"$\downarrow$",
    "↑": r"$\uparrow$",
} | {character: "\\" + character for character in "&%$#_"}


def latex_escaped(text: str) -> str:
    """``text`` with every character that LaTeX would take as a command made harmless."""
    return "".join(_LATEX.get(character, character) for character in text)


def to_latex(table: Table) -> str:
    """A ``table*`` with booktabs rules, shrunk to the page if it is wide; dominated rows are grey.

    The first line names the packages that it needs.
    """
    wide = len(table.columns) > 10
    alignment = "".join("r" if column.numeric else "l" for column in table.columns)
    lines = [
        "% needs \\usepackage{booktabs,graphicx,xcolor}",
        "\\begin{table*}",
        "\\centering\\small",
        f"\\caption{{{latex_escaped(table.caption)}}}",
        ("\\resizebox{\\textwidth}{!}{" if wide else "") + f"\\begin{{tabular}}{{{alignment}}}",
        "\\toprule",
        " & ".join(latex_escaped(_head(column)) for column in table.columns) + " \\\\",
        "\\midrule",
    ]
    for row, mark in zip(_rows(table), table.marks, strict=True):
        cells = [_latex_cell(value) for value in row]
        if mark in ("dominated", "failed"):
            cells = [f"\\textcolor{{gray}}{{{cell}}}" for cell in cells]
        elif mark == "baseline":
            cells = [f"\\textbf{{{cell}}}" for cell in cells]
        lines.append(" & ".join(cells) + " \\\\")
    lines += ["\\bottomrule", "\\end{tabular}" + ("}" if wide else "")]
    lines += [f"\\par\\smallskip\\footnotesize {latex_escaped(note)}" for note in table.notes]
    return "\n".join([*lines, "\\end{table*}", ""])


def _latex_cell(value: Value) -> str:
    text = latex_escaped(value.shown) or "--"
    if value.interval:
        text += f" {{\\scriptsize {latex_escaped(value.interval)}}}"
    return f"{text} \\emph{{({latex_escaped(value.tag)})}}" if value.tag else text


def to_html(table: Table) -> str:
    """A ``<table>``; row marks are classes, intervals stand in ``<small>``."""
    out = [f"<table>\n<caption>{html.escape(table.caption)}</caption>\n<thead><tr>"]
    for column in table.columns:
        unit = f"<br><small>{html.escape(column.unit)}</small>" if column.unit else ""
        out.append(f'<th class="{_side(column)}">{html.escape(column.title)}{unit}</th>')
    out.append("</tr></thead>\n<tbody>\n")
    for row, mark in zip(_rows(table), table.marks, strict=True):
        cells = "".join(
            f'<td class="{_side(column)}">{_html_cell(value)}</td>'
            for column, value in zip(table.columns, row, strict=True)
        )
        out.append(f'<tr class="{mark}">{cells}</tr>\n')
    out.append("</tbody></table>\n")
    out += [f'<p class="note">{html.escape(note)}</p>\n' for note in table.notes]
    return "".join(out)


def _side(column: Column) -> str:
    if column.wide:
        return "wide"
    return "number" if column.numeric else "text"


def _html_cell(value: Value) -> str:
    text = html.escape(value.shown) or NOTHING
    if value.interval:
        text += f" <small>{html.escape(value.interval)}</small>"
    return f"{text} <em>({html.escape(value.tag)})</em>" if value.tag else text


def to_data(table: Table) -> dict[str, Any]:
    """Plain data for the template: ``columns`` (heads) and ``rows`` (a mark and its entries)."""
    return {
        "type": "table",
        "name": table.name,
        "caption": table.caption,
        "notes": list(table.notes),
        "columns": [
            {
                "title": column.title,
                "unit": column.unit,
                "numeric": column.numeric,
                "wide": column.wide,
                "intervals": column.has_intervals,
            }
            for column in table.columns
        ],
        "rows": [
            {
                "mark": mark,
                "values": [{"shown": value.shown, "interval": value.interval, "tag": value.tag} for value in row],
            }
            for row, mark in zip(_rows(table), table.marks, strict=True)
        ],
    }
