"""Published beside measured: costs by the paper's convention, speed with its hardware, quality with its protocol."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ditbench.harness.published.conventions import at_digits
from ditbench.harness.published.schema import QUALITY, SPEED, UNITS, Published, Quantity
from ditbench.harness.store.records import Quantity as Measured
from ditbench.report.published import Match, Unfollowed, entries, matches, summary_of, unfollowed
from ditbench.report.row import Row
from ditbench.report.run_view import RunView
from ditbench.report.tables.table import EMPTY, Column, Mark, Table, Value, number_column, text_column

_QUALITY_TITLES: dict[Quantity, tuple[str, str]] = {
    "fid": ("FID", "frechet"),
    "sfid": ("sFID", "sfid"),
    "is": ("IS", "inception_score"),
    "precision": ("Prec.", "precision"),
    "recall": ("Recall", "recall"),
}
_SIDE = 32  # latents of the presets; a cell's config may say another


def published_summary(view: RunView) -> str:
    """See ``ditbench.report.published.summary_of``."""
    return summary_of(view)


def published_tables(view: RunView) -> list[Table | None]:
    """Costs, speed, quality, and what does not follow; None for those that no cell names figures of."""
    return [costs_table(view), speed_table(view), quality_printed_table(view), unfollowed_table(view)]


def costs_table(view: RunView) -> Table | None:
    """One row a printed cost of a row that a cell names."""
    found = matches(view)
    if not found:
        return None
    names = list(dict.fromkeys(match.by for match in found if match.by))
    letters = {name: chr(ord("a") + place) for place, name in enumerate(names)}
    columns = (
        text_column("source", "Printed in", [match.entry.source for match in found]),
        text_column("label", "Row", [match.entry.label for match in found]),
        text_column("cell", "Cell", [match.row.cell for match in found]),
        _numbers("printed", "Printed", [_value(match, match.figure.printed) for match in found]),
        _numbers("counted", "Counted", [_value(match, match.counted) for match in found]),
        text_column("verdict", "Verdict", [match.verdict for match in found], tags=[_tag(match) for match in found]),
        text_column("by", "By", [letters.get(match.by or "", "") for match in found]),
        _numbers("ours", "Ours", [_value(match, _ours(match)) for match in found]),
    )
    words = {match.by: match.convention.words for match in found if match.convention}
    taken = [letters[str(m.by)] for m in found if m.convention and m.convention.from_print]
    notes = ["; ".join(f"({letter}) {words[name]}" for name, letter in letters.items()) + "."]
    if taken:
        notes.append(
            f"({taken[0]}) checks the rest of the count, not the share, which is a mean over learned routers. Ours has "
            "the routers in it; whether the printed figure has them is not said."
        )
    notes.append(
        "Ours: MACs as fvcore counts them, routers included: G of a forward of one sequence, T of all forwards of an "
        "image, % of the loop with the fullest choice throughout."
    )
    caption = "Printed costs and the same counted by the paper's convention, at the printed digits."
    table = Table("published_costs", caption, columns, _no_marks(len(found)), tuple(notes))
    return table.without_empty_columns()


def speed_table(view: RunView) -> Table | None:
    """One row a printed row with times or speed-ups: each side with its hardware, never in one column."""
    found = [(row, entry) for row, entry in entries(view) if entry.of(*SPEED)]
    if not found:
        return None
    base = next((row for row in view.rows if row.is_baseline), None)
    others = [_differing(_loop(row, entry)) for row, entry in found]
    timed = [
        None if other else row.quantity("latency", "image_ms") for (row, _), other in zip(found, others, strict=True)
    ]
    speedups = [None if other else _speedup(*pair, base) for pair, other in zip(found, others, strict=True)]
    devices = [_device(row, other) for (row, _), other in zip(found, others, strict=True)]
    columns = (
        text_column("source", "Printed in", [entry.source for _, entry in found]),
        text_column("label", "Row", [entry.label for _, entry in found]),
        _printed(found, "speedup", "Speed-up"),
        _printed(found, "latency_s_image", "time/image", "s"),
        text_column("hardware", "on", [entry.hardware for _, entry in found]),
        text_column("cell", "Cell", [row.cell for row, _ in found]),
        number_column("measured_speedup", "Measured", "1", speedups, decimals=2),
        number_column("measured_image", "time/image", "s", [_seconds(time) for time in timed]),
        text_column("device", "on", devices),
    )
    notes = ["Printed and measured times are of different machines: neither is a claim about the other."]
    if not any(devices):
        notes = ["This run timed nothing."]
    caption = "Printed speed with its hardware, and the speed that this run measured with its own."
    return Table("published_speed", caption, columns, _no_marks(len(found)), tuple(notes)).without_empty_columns()


def quality_printed_table(view: RunView) -> Table | None:
    """One row a printed row with quality; measured figures only where the protocol is the printed one."""
    found = [(row, entry) for row, entry in entries(view) if entry.of(*QUALITY)]
    if not found:
        return None
    misfits = [misfit(row, entry) for row, entry in found]
    protocols = dict.fromkeys(entry.protocol.scoring for _, entry in found)
    letters = {protocol: chr(ord("a") + place) for place, protocol in enumerate(protocols)}

    def measured(name: str) -> list[Measured | None]:
        return [
            None if wrong else row.quantity("quality", name) for (row, _), wrong in zip(found, misfits, strict=True)
        ]

    columns = (
        text_column("source", "Printed in", [entry.source for _, entry in found]),
        text_column("label", "Row", [entry.label for _, entry in found]),
        *(_printed(found, quantity, title) for quantity, (title, _) in _QUALITY_TITLES.items()),
        text_column("loop", "Loop", [entry.protocol.loop for _, entry in found]),
        text_column("protocol", "By", [letters[entry.protocol.scoring] for _, entry in found]),
        text_column("cell", "Cell", [row.cell for row, _ in found]),
        *(
            number_column(f"measured_{name}", f"{title}, measured", "1", measured(name))
            for title, name in _QUALITY_TITLES.values()
        ),
        text_column("measured", "Measured", misfits),
    )
    caption = (
        "Printed quality with its protocol; a measured figure stands beside it only where the protocol is the same."
    )
    notes = ("; ".join(f"({letter}) {protocol}" for protocol, letter in letters.items()) + ".",)
    return Table("published_quality", caption, columns, _no_marks(len(found)), notes).without_empty_columns()


def unfollowed_table(view: RunView) -> Table | None:
    """Printed costs that no architecture here gives, each with its reason."""
    found = unfollowed(view)
    if not found:
        return None
    columns = (
        text_column("source", "Printed in", [each.source for each in found]),
        text_column("printed", "Printed", [_rows_of(each) for each in found], wide=True),
        text_column("reason", "Why they do not follow", [each.reason for each in found], wide=True),
    )
    caption = "Printed costs of the same papers that do not follow from an architecture, and why."
    return Table("published_unfollowed", caption, columns, _no_marks(len(found)))


def misfit(row: Row, entry: Published) -> str:
    """Why the cell's quality does not stand beside the printed one; '' where it does."""
    record, asked = row.records.get("quality"), entry.protocol
    if row.spec.cost_only:
        return "no weights"
    if record is None or record.status != "ok":
        return "not measured"
    facts = (
        ("evaluator", str(record.protocol).split("-")[0], "adm" if asked.metrics else None),
        ("samples", record.options.get("samples"), asked.samples),
    )
    return _differing((*_loop(row, entry), *facts))


def _loop(row: Row, entry: Published) -> tuple[tuple[str, object, object], ...]:
    """(name, the cell's, the printed row's or None) of what makes an image."""
    asked, spec = entry.protocol, row.spec
    return (
        ("sampler", spec.sampler, asked.sampler and asked.sampler.lower()),
        ("steps", spec.steps, asked.steps),
        ("guidance", spec.guidance_scale, asked.guidance),
        ("resolution", 8 * int(spec.config.get("input_size", _SIDE)), asked.resolution),
    )


def _differing(facts: Iterable[tuple[str, object, object]]) -> str:
    names = [name for name, ours, printed in facts if printed is not None and ours != printed]
    return f"other {', '.join(names)}" if names else ""


def _tag(match: Match) -> str:
    if match.reproduced:
        return ""
    return "see below" if match.figure.reason else "not reproduced" if match.value is not None else ""


def _ours(match: Match) -> str:
    return "" if match.ours is None else at_digits(match.ours, match.figure.printed)


def _value(match: Match, text: str) -> Value:
    return Value(float(text), f"{text} {UNITS[match.figure.quantity]}") if text else EMPTY


def _numbers(key: str, title: str, values: Sequence[Value]) -> Column:
    return Column(key, title, tuple(values), numeric=True)


def _printed(found: Sequence[tuple[Row, Published]], quantity: Quantity, title: str, unit: str = "") -> Column:
    texts = [entry.printed(quantity) for _, entry in found]
    values = tuple(Value(float(text), text) if text else EMPTY for text in texts)
    return Column(f"printed_{quantity}", title, values, unit, numeric=True)


def _speedup(row: Row, entry: Published, base: Row | None) -> Measured | None:
    """The measured speed-up, where the run's baseline is what the printed one is against."""
    return row.speedup if base is not None and entry.against in base.spec.published else None


def _seconds(time: Measured | None) -> Measured | None:
    if time is None:
        return None
    low, high = (None if end is None else end / 1e3 for end in (time.low, time.high))
    return Measured(value=time.value / 1e3, unit="s", low=low, high=high, interval=time.interval)


def _device(row: Row, other: str) -> str:
    """What the times were taken on, or why they do not stand here; '' where nothing was timed."""
    if row.quantity("latency", "image_ms") is None:
        return ""
    return other or f"{row.device_name}, {row.spec.dtype}, batch {row.batch}"


def _rows_of(group: Unfollowed) -> str:
    """'DiT-XL, 512: 514 G; SiT-XL, 512: 514 G'."""
    return "; ".join(f"{label}: {printed}" for label, printed in group.rows)


def _no_marks(rows: int) -> tuple[Mark, ...]:
    return tuple("plain" for _ in range(rows))
