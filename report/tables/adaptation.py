"""The tables on adaptation: what each way of training takes and gives, and one beside what it refines."""

from __future__ import annotations

from collections.abc import Sequence

from ditbench.harness.stats.compare import Change
from ditbench.harness.store.records import Quantity
from ditbench.report.adaptation import Group, difference, equal_pairs, groups_of, to_full, verdict
from ditbench.report.run_view import RunView
from ditbench.report.tables.table import Mark, Table, number_column, text_column
from ditbench.report.words.phrases import listed


def adaptation_table(view: RunView) -> Table | None:
    """One row a recipe, over its seeds; None if no cell's training was measured."""
    groups = groups_of(view)
    if not groups:
        return None

    def cost(name: str) -> list[Quantity | None]:
        return [group.cost(name) for group in groups]

    changes = [to_full(group, groups) for group in groups]
    ratios = cost("training_ratio")
    related = any(ratio is not None for ratio, group in zip(ratios, groups, strict=True) if not group.is_baseline)
    time = (
        number_column("training_ratio", "Time/image", "1", ratios, decimals=3)
        if related
        else number_column("training_image_ms", "Time/image", "ms", cost("training_image_ms"))
    )
    columns = (
        text_column("cells", "Cells", [group.name for group in groups]),
        text_column("method", "Method", [group.method for group in groups]),
        text_column("how", "Trained", [group.how for group in groups]),
        number_column("trainable", "Trainable", "#", [group.trainable for group in groups]),
        number_column("share", "Of full", "%", [_percent(group.share_of_full) for group in groups]),
        number_column("gradients_optimizer", "Grad. + opt.", "MiB", [_both(group) for group in groups]),
        number_column("training_peak_mib", "Peak", "MiB", _bare(cost("training_peak_mib"))),
        time,
        number_column("seeds", "Seeds", "1", [len(group.draws) or len(group.rows) for group in groups], decimals=0),
        number_column("frechet", "Fréchet ↓", "1", [group.frechet for group in groups]),
        number_column("to_full", "− full", "1", [_quantity(change) for change in changes], decimals=3),
    )
    caption = "Training and what comes of it: means over seeds"
    caption += f"; time an image as a multiple of {view.baseline}'s" if related else ""
    caption += f"; protocol {view.protocol}." if view.protocol else "."
    return Table("adaptation", caption, columns, _marks(groups), _notes(groups)).without_empty_columns()


def equal_size_table(view: RunView) -> Table | None:
    """What refines a way of training less that, at as many trainable parameters; None without such a pair."""
    found = [(plain, refined, difference(plain, refined)) for plain, refined in equal_pairs(groups_of(view))]
    pairs = [(plain, refined, change) for plain, refined, change in found if change is not None]
    if not pairs:
        return None
    kinds = {(plain.kind, refined.kind) for plain, refined, _ in pairs}
    plainly, refinedly = kinds.pop() if len(kinds) == 1 else ("Plain", "Refined")
    columns = (
        text_column("method", "Method", [refined.method for _, refined, _ in pairs]),
        text_column("refined", refinedly, [f"{refined.name} ({refined.how})" for _, refined, _ in pairs]),
        text_column("plain", plainly, [f"{plain.name} ({plain.how})" for plain, _, _ in pairs]),
        number_column("trainable", "Trainable", "#", [refined.trainable for _, refined, _ in pairs]),
        number_column("difference", "Fréchet, difference", "1", [_quantity(c) for _, _, c in pairs], decimals=3),
        text_column("verdict", f"{refinedly} is", [verdict(change) for _, _, change in pairs]),
    )
    ways = dict.fromkeys(change.method for _, _, change in pairs)
    notes = [f"Brackets: {'; '.join(ways)}. Each row for itself: no allowance is made for their number."]
    caption = f"{refinedly} less {plainly} at equal trainable parameters (to 1 %); below 0 {refinedly} is better."
    marks: list[Mark] = ["plain"] * len(pairs)
    return Table("equal_size", caption, columns, tuple(marks), tuple(notes))


def _marks(groups: Sequence[Group]) -> tuple[Mark, ...]:
    return tuple("baseline" if group.is_baseline else "plain" for group in groups)


def _notes(groups: Sequence[Group]) -> tuple[str, ...]:
    lacking = [f"{g.name} {len(g.draws)} of {len(g.rows)}" for g in groups if 0 < len(g.draws) < len(g.rows)]
    notes = [f"Quality of not all seeds: {listed(lacking)}."] if lacking else []
    lengths: dict[str, list[str]] = {}
    for group in groups:
        lengths.setdefault(f"{group.recipe.get('steps')} × {group.recipe.get('batch')}", []).append(group.name)
    told = [f"{length} ({listed(names)})" if len(lengths) > 1 else length for length, names in lengths.items()]
    notes.append(f"Steps × images a step: {'; '.join(told)}. Peak memory is at that batch.")
    alone = [group.name for group in groups if len(group.draws) == 1]
    notes += [f"One seed, so no interval of the Fréchet distance: {listed(alone)}."] if alone else []
    return tuple(notes)


def _both(group: Group) -> float | None:
    parts = [group.cost(name) for name in ("gradient_mib", "optimizer_mib")]
    return sum(part.value for part in parts if part) if all(parts) else None


def _bare(quantities: Sequence[Quantity | None]) -> list[float | None]:
    return [None if quantity is None else quantity.value for quantity in quantities]


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _quantity(change: Change | None) -> Quantity | None:
    if change is None:
        return None
    return Quantity(value=change.value, unit="1", low=change.low, high=change.high, interval=change.method)
