"""One forward's multiply–accumulates, by operator."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ditbench.report.facets import router_gmacs, weak_guidance
from ditbench.report.numbers import Scale, scale_for
from ditbench.report.row import Row
from ditbench.report.run_view import RunView
from ditbench.report.tables.rows import plain_marks_of, tag_of
from ditbench.report.tables.table import Column, Table, number_column, text_column

_ONE = "; guidance is not counted"


_BOTH = ", and over both branches where they run otherwise; guidance's second forward is not added to it"


_OPERATORS = ("linear", "attention", "conv", "layer_norm")


def operators_table(view: RunView) -> Table | None:
    """One forward's MACs by operator, with layer norm apart; None if nothing was counted."""
    rows = tuple(row for row in view.rows if row.detail("flops").get("by_operator"))
    if not rows:
        return None
    counts = [row.detail("flops")["by_operator"] for row in rows]
    totals = [row.value("flops", "gmacs_step") or sum(count.values()) for row, count in zip(rows, counts, strict=True)]
    shown = [row.quantity("flops", "gmacs_step") or total for row, total in zip(rows, totals, strict=True)]
    norms = [float(count.get("layer_norm", 0.0)) for count in counts]
    scale = scale_for(totals, "GMAC")
    decimals = max(2, min(4, 6 - math.floor(math.log10(max(totals) / scale.divisor or 1.0))))
    names = [*_OPERATORS, *sorted({name for count in counts for name in count} - set(_OPERATORS))]
    products = [
        number_column(
            name,
            name.replace("_", " "),
            "GMAC",
            [count.get(name) for count in counts],
            decimals=decimals,
            scale=scale,
        )
        for name in names
        if name != "layer_norm"
    ]
    bare = [total - norm for total, norm in zip(totals, norms, strict=True)]
    routers = _router_columns(rows, scale)
    # It can be worked out from its neighbours: where routers have columns, it makes room for them.
    shares = [100 * norm / total for norm, total in zip(norms, totals, strict=True)]
    share = number_column("norm_share", "norm share", "%", shares, decimals=2)
    columns = (
        text_column("cell", "Cell", [row.cell for row in rows], tags=[tag_of(row) for row in rows]),
        *products,
        number_column("without", "without norm", "GMAC", bare, decimals=decimals, scale=scale),
        number_column("layer_norm", "layer norm", "GMAC", norms, decimals=decimals, scale=scale),
        number_column("total", "MACs/step", "GMAC", shown, decimals=decimals, scale=scale),
        *(routers or (share,)),
    )
    note = (
        f"One forward of one sequence, mean over the steps{_BOTH if any(map(weak_guidance, rows)) else _ONE}. "
        "Many papers leave layer norm out: their figure is the column without norm."
    )
    if any(router_gmacs(row) for row in rows):
        note += " Routers: what the decisions cost, already in MACs/step and in its operators."
    return Table(
        "operators", "Multiply–accumulates of one forward, by operator.", columns, plain_marks_of(rows), (note,)
    ).without_empty_columns()


def _router_columns(rows: Sequence[Row], scale: Scale) -> tuple[Column, ...]:
    """One column for each kind of router that any cell has."""
    parts = [router_gmacs(row) for row in rows]
    names = sorted({name for part in parts for name in part})
    return tuple(number_column(name, name, "GMAC", [part.get(name) for part in parts], scale=scale) for name in names)
