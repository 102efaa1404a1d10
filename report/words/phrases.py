"""What the sentences of the summary are made of: lists, figures with their intervals, and which are comparable."""

from __future__ import annotations

from collections.abc import Iterable

from ditbench.harness.store.records import Quantity
from ditbench.report.flexible import weak_guidance
from ditbench.report.numbers import short
from ditbench.report.row import Row


def listed(words: Iterable[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    items = list(words)
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""


def spread(quantity: Quantity) -> str:
    """'2.40 [2.30, 2.53]'."""
    text = short(quantity.value)
    if quantity.low is None or quantity.high is None:
        return text
    return f"{text} [{short(quantity.low)}, {short(quantity.high)}]"


def overlap(a: Quantity, b: Quantity) -> bool:
    """Whether the 95 % intervals meet; not where one has none."""
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return False
    return max(a.low, b.low) <= min(a.high, b.high)


def sampled_alike(row: Row, base: Row) -> bool:
    """Whether both cells sample in the same way, the patch sizes apart."""
    a, b = row.spec, base.spec
    if weak_guidance(row) and weak_guidance(base) and a.guidance_weak != b.guidance_weak:
        return False
    guided = (a.guidance_scale, a.guidance_interval, a.guidance_channels)
    return (a.sampler, a.sampler_options, a.steps, *guided) == (
        b.sampler,
        b.sampler_options,
        b.steps,
        b.guidance_scale,
        b.guidance_interval,
        b.guidance_channels,
    )
