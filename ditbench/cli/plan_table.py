"""The table that ``plan`` prints: at most about 110 columns, totals and reasons below it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ditbench.harness.forecast.forecast import CellCost, Forecast
from ditbench.harness.suite.plan import Plan, PlannedCell

HEAD: tuple[str, ...] = ("cell", "method", "sampling", "identity", "GMAC/image", "time", "disk", "to run")
RIGHT = (4, 5, 6)


def print_plan(
    plan: Plan, folder: Path, missing: Mapping[str, list[str]], cached: int, forecast: Forecast, absent: set[str]
) -> None:
    """``missing``: cell -> measurements to run; ``cached``: how many have records; ``absent``: devices not here."""
    reasons = list(dict.fromkeys(each.reason for cell in plan.cells for each in cell.waiting))
    rows = [HEAD]
    rows += [_row(plan, cell, missing, forecast.cells[cell.spec.cell], reasons) for cell in plan.cells]
    print(f"{plan.suite.suite}: {len(plan.cells)} cells, folder {folder}")
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        shown = [
            text.rjust(width) if at in RIGHT else text.ljust(width)
            for at, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(shown).rstrip())
    _print_totals(plan, missing, cached, forecast)
    for number, reason in enumerate(reasons, 1):
        print(f"[{number}] waits for a file: {reason}")
    if absent:
        print("no GPU here: cells on cuda are neither checked nor timed, and cannot run on this machine")
    if any(cost.count.bound for cost in forecast.cells.values()):
        print("≤ routers open; what they leave on is counted in the run")
    if plan.baseline:
        print("* baseline; identity: of the first measurement, all of them with --json")


def _row(
    plan: Plan, cell: PlannedCell, missing: Mapping[str, list[str]], cost: CellCost, reasons: list[str]
) -> tuple[str, ...]:
    spec = cell.spec
    star = " *" if plan.baseline and plan.baseline.cell == spec.cell else ""
    guided = f" g{spec.guidance_scale:g}" if spec.guidance_scale != 1.0 else ""
    wanted = missing.get(spec.cell, [])
    todo = "all" if wanted and len(wanted) == len(cell.measurements) else ", ".join(wanted)
    waits = [f"[{number}]" for number in sorted(reasons.index(each.reason) + 1 for each in cell.waiting)]
    if waits:
        todo = " ".join(filter(None, [todo if cell.measurements else "", "waits", *waits]))
    bound = "≤ " if cost.count.bound else ""
    count = "by solver" if cost.count.gmacs_image is None else bound + gmacs(cost.count.gmacs_image)
    more = "+" if cost.untimed and cost.seconds else ""
    return (
        spec.cell + star,
        spec.method,
        f"{spec.sampler} {spec.steps or 'adaptive'}{guided}",
        cell.measurements[0].identity[:8] if cell.measurements else "–",
        count,
        f"{bound}{duration(cost.total_s)}{more}" if cost.seconds else "–",
        size(cost.work.bytes) if cost.work.bytes else "–",
        todo or "cached",
    )


def _print_totals(plan: Plan, missing: Mapping[str, list[str]], cached: int, forecast: Forecast) -> None:
    count = sum(map(len, missing.values()))
    total = sum(len(cell.measurements) for cell in plan.cells)
    waits = len({(cell.spec.cell, name) for cell in plan.cells for each in cell.waiting for name in each.measurements})
    waiting = f" {waits} wait for files." if waits else ""
    others = f", {total - count - cached} shared with another cell" if total - count > cached else ""
    print(f"{count} of {total + waits} measurements to run; {cached} cached{others}.{waiting}")
    sampling = sum(cost.gmacs_sampling or 0.0 for cost in forecast.cells.values())
    images = sum(cost.work.images for cost in forecast.cells.values())
    if sampling:
        print(f"Sampling {images:,} images: {sampling:,.4g} GMAC.")
    if forecast.timed:
        names = {cell.spec.cell for cell in plan.cells if cell.waiting}
        of_them = f", {duration(forecast.seconds(names))} of it in cells that wait" if names else ""
        kinds: dict[str, float] = {}
        for cost in forecast.cells.values():
            for kind, seconds in cost.seconds.items():
                kinds[kind] = kinds.get(kind, 0.0) + seconds
        parts = ", ".join(f"{kind} {duration(seconds)}" for kind, seconds in kinds.items() if seconds)
        most = "At most about" if any(cost.count.bound for cost in forecast.cells.values()) else "About"
        print(f"{most} {duration(forecast.seconds())} on this machine ({parts}){of_them}. An estimate, from:")
        for words in forecast.timed:
            print(f"  {words}")
    slow = [
        cell.spec.cell
        for cell in plan.cells
        if forecast.cells[cell.spec.cell].total_s > (cell.spec.timeout_s or plan.suite.limits.timeout_s)
    ]
    if slow:
        print(f"WARNING: may be stopped by timeout_s: {', '.join(slow)}")
    untimed = list(dict.fromkeys(kind for cost in forecast.cells.values() for kind in cost.untimed))
    if untimed:
        print(f"+ not timed: {', '.join(untimed)}")
    if forecast.disk_bytes:
        print(f"Disk: {size(forecast.disk_bytes)} more, {size(forecast.free_bytes)} free.")
    if forecast.disk_bytes > forecast.free_bytes:
        print("WARNING: this does not fit on the disk of the run's folder.")


def gmacs(count: float) -> str:
    """Four digits, or all before the point."""
    return f"{count:,.0f}" if count >= 1000 else f"{count:.4g}"


def duration(seconds: float) -> str:
    """'40 s', '12 min', '3.2 h', '5.1 d': two digits, because it is an estimate."""
    for unit, length in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= (2 * length if unit == "d" else length):
            return f"{_two_digits(seconds / length)} {unit}"
    return f"{_two_digits(seconds)} s"


def size(count: float) -> str:
    """'3.1 GB', in powers of 1000, as disks are sold."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{_two_digits(count / factor)} {unit}"
    return f"{count:.0f} B"


def _two_digits(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"
