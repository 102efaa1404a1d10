"""What a method that computes less promised, what it delivered, and where the rest of the time went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ditbench.harness.store.records import Quantity
from ditbench.report.facets import is_dynamic, router_gmacs
from ditbench.report.row import Row
from ditbench.report.run_view import RunView
from ditbench.report.tables.rows import plain_marks_of, tag_of
from ditbench.report.tables.table import Table, number_column, text_column
from ditbench.report.words.phrases import preparing

# Column key -> (title, classes of kernels). A class that stands nowhere here counts as 'other'.
_GROUPS: dict[str, tuple[str, tuple[str, ...]]] = {
    "router": ("routers", ("router",)),
    "gather": ("gather", ("gather",)),
    "linear": ("linear", ("linear",)),
    "attention": ("attention", ("attention",)),
    "pointwise": ("norm, elementw.", ("norm", "elementwise")),
    "other": ("copy, other", ("copy", "conv", "other")),
    "gap": ("gap", ("gap",)),
}


def delivered_table(view: RunView) -> Table | None:
    """One row a cell that promises less compute by its method; None if there is none."""
    rows = _promising(view)
    if not rows:
        return None
    prepare = [row.quantity("latency", "prepare_ms") for row in rows]
    paid = any(quantity is not None and quantity.value > 0 for quantity in prepare)
    routers = [_router_share(row) for row in rows]
    columns = (
        text_column("cell", "Cell", [row.cell for row in rows], tags=[tag_of(row) for row in rows]),
        number_column("flops_ratio", "MACs ratio", "1", [row.flops_ratio for row in rows], decimals=3),
        number_column("promised", "Promised", "1", [_promised(row) for row in rows], decimals=2),
        number_column("delivered", "Delivered", "1", [row.speedup for row in rows], decimals=2),
        number_column("realised", "Realised", "1", [row.realised for row in rows], decimals=2),
        number_column("prepare_ms", "Prepare", "ms", prepare if paid else [None] * len(rows)),
        number_column("router_share", "Router MACs", "%", routers, decimals=2),
    )
    notes = [
        "Promised: the speed-up if time fell as the MACs of an image do. Delivered: the measured speed-up, with its "
        "95 % interval. Realised: delivered / promised."
    ]
    if paid:
        notes.append(f"Prepare: {preparing(rows)}, once. The timed sampling loop includes it; a timed step does not.")
    if any(share is not None for share in routers):
        notes.append("Router MACs: their share of a step's MACs, which include them.")
    caption = f"Promised and delivered speed-up against {view.baseline}, of the methods that save compute."
    return Table("delivered", caption, columns, plain_marks_of(rows), tuple(notes)).without_empty_columns()


def lost_time_table(view: RunView) -> Table | None:
    """Excess time by class of kernel over what was promised; None without both kernel records of any cell."""
    base = next((row for row in view.rows if row.is_baseline), None)
    found = [(row, excess) for row in _promising(view) if base is not None and (excess := excess_time(row, base))]
    if not found or base is None:
        return None
    rows = [row for row, _ in found]
    prepare = [excess.get("prepare") for _, excess in found]
    columns = [
        text_column("cell", "Cell", [row.cell for row in rows], tags=[tag_of(row) for row in rows]),
        number_column("promised_ms", "promised", "ms", [excess["promised_ms"] for _, excess in found]),
        *(
            number_column(key, title, "%", [excess[key] for _, excess in found], decimals=1)
            for key, (title, _) in _GROUPS.items()
            if any(excess[key] for _, excess in found)
        ),
        number_column("sum", "sum", "%", [excess["sum"] for _, excess in found], decimals=1),
        number_column("prepare", "prepare", "%", prepare if any(prepare) else [None] * len(rows), decimals=1),
    ]
    notes = (
        f"Promised: the time of {base.cell}'s call times the ratio of the MACs of both calls. Each column is the time "
        "that a class of kernels took beyond its promised part, in % of the whole promised time; "
        "negative: it took less. The classes add up to the column sum: the whole call against its promise."
        + (f" Prepare: {preparing(rows)}; spread over the steps, and not in the sum." if any(prepare) else ""),
        "The classes come from profiled runs, which are slower than the timed ones: this table explains the realised "
        "share and does not measure it.",
    )
    table = Table("lost", f"Where the rest went; against {base.cell}.", tuple(columns), plain_marks_of(rows), notes)
    return table.without_empty_columns()


def excess_time(row: Row, base: Row) -> dict[str, float]:
    """Time of a call beyond r × the baseline's, in % of that promised time: one entry a group of classes.

    r is the ratio of the MACs of both calls (MACs a step × rows). 'sum' is the whole call's excess, 'prepare' the
    preparation a step, 'promised_ms' the promised time. Empty without both kernel records, or if they come from two
    devices.
    """
    ratio = _call_ratio(row, base)
    spent, usual = _grouped(row), _grouped(base)
    if ratio is None or not spent or not usual:
        return {}
    if row.records["kernels"].provenance.device_name != base.records["kernels"].provenance.device_name:
        return {}
    promised = ratio * sum(usual.values())
    excess = {key: 100 * (spent[key] - ratio * usual[key]) / promised for key in _GROUPS}
    excess |= {"sum": 100 * (sum(spent.values()) / promised - 1), "promised_ms": promised}
    prepare = row.value("latency", "prepare_ms")
    if prepare is not None:
        excess["prepare"] = 100 * prepare / row.evaluations / promised
    return excess


def _promising(view: RunView) -> tuple[Row, ...]:
    """Cells of another method or config than the baseline's that promise less work a step, or switch parts of it.

    Cells that differ in sampler, steps or guidance alone are left out: they skip whole calls, and all of that arrives.
    """
    base = next((row for row in view.rows if row.is_baseline), None)
    return () if base is None else tuple(row for row in view.rows if _promises(row, base))


def _promises(row: Row, base: Row) -> bool:
    if (row.spec.method, row.spec.config) == (base.spec.method, base.spec.config):
        return False
    if row.flops_ratio is None or not row.detail("latency"):
        return False
    gmacs, usual = row.value("flops", "gmacs_step"), base.value("flops", "gmacs_step")
    return is_dynamic(row) or (gmacs is not None and usual is not None and gmacs < usual)


def _promised(row: Row) -> float | None:
    return 1 / row.flops_ratio if row.flops_ratio else None


def _router_share(row: Row) -> Quantity | float | None:
    """% of a step's MACs; None for a cell without routers."""
    gmacs, parts = row.value("flops", "gmacs_step"), router_gmacs(row)
    return 100 * sum(parts.values()) / gmacs if gmacs and parts else None


def _call_ratio(row: Row, base: Row) -> float | None:
    calls = []
    for each in (row, base):
        gmacs, rows = each.value("flops", "gmacs_step"), each.detail("kernels").get("rows")
        if not gmacs or not rows:
            return None
        calls.append(gmacs * float(rows))
    return calls[0] / calls[1]


def _grouped(row: Row) -> dict[str, float]:
    """Group -> ms a denoiser call, every group present; empty without a kernel record."""
    return _sums(row.detail("kernels").get("classes") or ())


def _sums(classes: Sequence[Mapping[str, object]]) -> dict[str, float]:
    group_of = {name: key for key, (_, names) in _GROUPS.items() for name in names}
    sums = dict.fromkeys(_GROUPS, 0.0)
    for entry in classes:
        sums[group_of.get(str(entry["class"]), "other")] += float(str(entry["ms"]))
    return sums if sum(sums.values()) > 0 else {}
