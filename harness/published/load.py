"""Reads the files of published figures that come with ditbench."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import TYPE_CHECKING

import yaml

from ditbench.harness.errors import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ditbench.harness.published.schema import Paper, Published


@cache
def library() -> Mapping[str, Published]:
    """Key -> printed row, by file and then as the file has them."""
    from ditbench.harness.published.schema import Paper

    folder = files("ditbench.harness.published")
    found = sorted((each for each in folder.iterdir() if each.name.endswith(".yaml")), key=lambda each: each.name)
    return collect(Paper.model_validate(yaml.safe_load(file.read_text(encoding="utf-8"))) for file in found)


def collect(papers: Iterable[Paper]) -> Mapping[str, Published]:
    """Key -> printed row. ValueError for a key that is there twice, and for a row that ``against`` does not find."""
    from ditbench.harness.published.schema import resolve

    found: dict[str, Published] = {}
    for row in (row for paper in papers for row in resolve(paper)):
        if row.key in found:
            raise ValueError(f"the key {row.key} is there twice")
        found[row.key] = row
    for row in found.values():
        if row.against is not None and row.against not in found:
            raise ValueError(f"{row.key}: its speed-up is against {row.against}, which is not there")
    return MappingProxyType(found)


def fault_of(key: str) -> str | None:
    """What is wrong with ``key``, in one line; None if it names a published row."""
    if key in library():
        return None
    hint = did_you_mean(key, library()) or " (`ditbench list published` names them)"
    return f"no published figures are called {key!r}{hint}"


def summary(row: Published) -> str:
    """One line for lists: 'DyDiT (arXiv 2410.03456), table 8: DiT-S: 6.07 G, 1.00×, 0.65 s, FID 21.46'."""
    names = {"fid": "FID", "sfid": "sFID", "is": "IS"}
    figures = ", ".join(f"{names.get(each.quantity, '')} {each.shown}".strip() for each in row.figures)
    paper = f"{row.paper} (arXiv {row.arxiv})" if row.arxiv else row.paper
    return f"{paper}, {row.table}: {row.label}: {figures}"
