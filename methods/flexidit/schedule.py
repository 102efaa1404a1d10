"""Which patch size runs at which sampling step: written as counts, fractions or a target compute, for both branches.

FlexiDiT (arXiv 2502.20126, section 3.3) runs the coarse, "weak" size at the first, noisiest steps. Other orders are
there to be compared with.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, cast, get_args

from ditbench.methods.errors import ConfigError
from ditbench.methods.flexidit.cost import CostOf

Order = Literal["weak-first", "weak-last", "interleaved"]
Form = Literal["target", "steps", "fractions"]
Sizes = tuple[int, ...]
_FORMS: tuple[str, ...] = get_args(Form)
_KEYS = (*_FORMS, "order", "sizes", "guidance")


@dataclass(frozen=True)
class Branch:
    """One branch's schedule as it was written; what it means depends on the number of steps.

    target   compute as a share of a loop at the pre-trained size, with the ``sizes`` that may be used (empty: all)
    amounts  (size, steps) or (size, share of the steps)
    last     "x/y": this many last steps at the finest size, the others at the next coarser one
    """

    form: Form
    target: float = 1.0
    amounts: tuple[tuple[int, float], ...] = ()
    last: int | None = None
    order: Order = "weak-first"
    sizes: Sizes = ()


@dataclass(frozen=True)
class Resolved:
    """Patch size a step, noisiest step first; ``guide`` is the guidance branch's, the same where none is written."""

    patch: Sizes
    guide: Sizes


@dataclass(frozen=True)
class Schedule:
    """See ``parse``."""

    main: Branch
    guidance: Branch | None = None

    @property
    def counts_steps(self) -> bool:
        """Whether a branch was written as counts, which must add up to the sampler's steps."""
        return any(branch is not None and branch.form == "steps" for branch in (self.main, self.guidance))

    @staticmethod
    def parse(value: Any, known: Sizes) -> Schedule:
        """From what users write. ``known``: the model's sizes. Raises ConfigError.

        0.64                                  target compute
        "130/70"                              finest size in the last 130 steps, and in the guidance branch's last 70
        {target: 0.64, sizes: [8, 2]}         the same between two sizes
        {steps: {4: 30, 2: 20}}               counts; they add up to the sampler's steps
        {fractions: {4: 0.6, 2: 0.4}}         shares of the steps
        order: weak-first | weak-last | interleaved, and guidance: any of these forms, beside target, steps or fractions
        """
        if isinstance(value, Schedule):
            for branch in filter(None, (value.main, value.guidance)):
                for size in (*branch.sizes, *dict(branch.amounts)):
                    _check_size(size, known)
            return value
        if isinstance(value, str) and (slash := re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", value)):
            main, guide = (Branch("steps", last=int(part)) for part in slash.groups())
            return Schedule(main, guide)
        if not isinstance(value, Mapping):
            return Schedule(_target(value, (), "weak-first", known))
        value = {str(key): inner for key, inner in value.items()}
        guidance = value.pop("guidance", None)
        main = _branch(value, known)
        if guidance is None:
            return Schedule(main)
        if isinstance(guidance, str) or (isinstance(guidance, Mapping) and "guidance" in guidance):
            raise ConfigError("schedule: guidance takes a target, or a mapping with target, steps or fractions")
        return Schedule(main, Schedule.parse(guidance, known).main)

    def resolve(self, steps: int, known: Sizes, cost: CostOf) -> Resolved:
        """Sizes of a loop of ``steps`` steps. ``known[0]`` is the pre-trained size. Raises ConfigError."""
        patch = _resolve(self.main, steps, known, cost)
        guide = patch if self.guidance is None else _resolve(self.guidance, steps, known, cost)
        if finer := [step for step, (a, b) in enumerate(zip(patch, guide, strict=True)) if b < a]:
            at = finer[0]
            raise ConfigError(
                f"schedule: at step {at} the guidance branch has patch size {guide[at]}, finer than the conditional "
                f"branch's {patch[at]}; give it as much compute at most (in 'x/y': y at most x)"
            )
        return Resolved(patch, guide)


def _branch(value: Mapping[str, Any], known: Sizes) -> Branch:
    if unknown := [key for key in value if key not in _KEYS]:
        raise ConfigError(f"schedule has no key {unknown[0]!r} (known: {', '.join(_KEYS)})")
    forms = [form for form in _FORMS if form in value]
    if len(forms) != 1:
        raise ConfigError(f"schedule needs exactly one of target, steps and fractions, and has {len(forms)}")
    order, form = value.get("order", "weak-first"), cast(Form, forms[0])
    if order not in get_args(Order):
        raise ConfigError(f"schedule's order is one of {', '.join(get_args(Order))}, not {order!r}")
    if form == "target":
        return _target(value["target"], _sizes(value.get("sizes", ())), order, known)
    if "sizes" in value:
        raise ConfigError(f"schedule: sizes belong to a target; {form} name their own")
    return Branch(form, amounts=_amounts(value[form], form, known), order=order)


def _target(value: Any, sizes: Sizes, order: Order, known: Sizes) -> Branch:
    if not _is_number(value) or not value > 0:
        raise ConfigError(
            "schedule is a compute share such as 0.64, 'x/y', or a mapping with target, steps or fractions, "
            f"not {value!r}"
        )
    for size in sizes:
        _check_size(size, known)
    if len(set(sizes)) == 1:
        raise ConfigError("schedule: sizes for a target are two or more")
    return Branch("target", target=float(value), order=order, sizes=sizes)


def _amounts(value: Any, form: str, known: Sizes) -> tuple[tuple[int, float], ...]:
    if not isinstance(value, Mapping) or not value:
        raise ConfigError(f"schedule: {form} map patch sizes to {form}, as in {_example(form)}")
    amounts: list[tuple[int, float]] = []
    for key, amount in value.items():
        size = _sizes([key])[0]
        _check_size(size, known)
        whole = form == "fractions" or (isinstance(amount, int) and not isinstance(amount, bool))
        if not _is_number(amount) or amount < 0 or not whole:
            raise ConfigError(f"schedule: {form} of size {size} must be {_what(form)}, not {amount!r}")
        if size in dict(amounts):
            raise ConfigError(f"schedule: {form} name size {size} twice")
        amounts.append((size, amount))
    if form == "fractions" and not math.isclose(total := sum(amount for _, amount in amounts), 1, abs_tol=1e-6):
        raise ConfigError(f"schedule's fractions add up to {total:g} and must add up to 1")
    return tuple(amounts)


def _example(form: str) -> str:
    return "{4: 30, 2: 20}" if form == "steps" else "{4: 0.6, 2: 0.4}"


def _what(form: str) -> str:
    return "a whole number of at least 0" if form == "steps" else "at least 0"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _sizes(values: Any) -> Sizes:
    """JSON has only strings for keys: '4' stands for 4."""
    try:
        if isinstance(values, str):
            raise ValueError
        sizes = tuple(int(value) for value in values)
        if any(str(size) != str(value) for size, value in zip(sizes, values, strict=True)):
            raise ValueError
    except (TypeError, ValueError):
        raise ConfigError(f"schedule: patch sizes are whole numbers, not {values!r}") from None
    return sizes


def _check_size(size: int, known: Sizes) -> None:
    if size not in known:
        listed = ", ".join(map(str, known))
        more = ", ".join(map(str, sorted({*known, size})))
        raise ConfigError(
            f"schedule names patch size {size} and the model has {listed}; patch_sizes: [{more}] adds it where "
            "the weights have it"
        )


def _resolve(branch: Branch, steps: int, known: Sizes, cost: CostOf) -> Sizes:
    if branch.form == "target":
        return _ordered(_solve(branch, steps, known, cost), branch.order)
    if branch.last is not None:
        return _ordered(_last(branch.last, steps, known), branch.order)
    if branch.form == "steps":
        counts = {size: int(amount) for size, amount in branch.amounts}
        total = sum(counts.values())
        if total != steps:
            scaled = _whole({size: amount / max(total, 1) for size, amount in branch.amounts}, steps)
            raise ConfigError(
                f"schedule's steps add up to {total} and the sampler takes {steps}: {scaled} would do, or fractions"
            )
        return _ordered(counts, branch.order)
    return _ordered(_whole(dict(branch.amounts), steps), branch.order)


def _last(last: int, steps: int, known: Sizes) -> dict[int, int]:
    if last > steps:
        raise ConfigError(f"schedule: {last} last steps at the finest size are more than the sampler's {steps}")
    fine = sorted(known)[:2]
    if len(fine) < 2:
        raise ConfigError("schedule 'x/y' needs a second patch size")
    return {fine[1]: steps - last, fine[0]: last}


def _solve(branch: Branch, steps: int, known: Sizes, cost: CostOf) -> dict[int, int]:
    """Counts whose compute is nearest to the target, by the two neighbouring sizes that enclose it."""
    usable = sorted(branch.sizes or known, reverse=True)
    shares = {size: cost(size) / cost(known[0]) for size in usable}
    if math.isclose(branch.target, shares[usable[-1]]):
        return {usable[-1]: steps}
    for coarse, fine in pairwise(usable):
        if shares[coarse] <= branch.target <= shares[fine]:
            weak = round(steps * (shares[fine] - branch.target) / (shares[fine] - shares[coarse]))
            return {coarse: weak, fine: steps - weak}
    if branch.target > shares[usable[-1]]:
        raise ConfigError(
            f"schedule's target {branch.target:g} is above what all steps at patch size {usable[-1]} cost, "
            f"{shares[usable[-1]]:.4g}: that is the most"
        )
    floor = shares[usable[0]]
    raise ConfigError(
        f"schedule's target {branch.target:g} is below the floor: all steps at patch size {usable[0]} cost "
        f"{floor:.4g}; {math.ceil(floor * 1000) / 1000:g} or more works{_coarser(usable[0], known, cost)}"
    )


def _coarser(largest: int, known: Sizes, cost: CostOf) -> str:
    size = 2 * largest
    try:
        share = cost(size) / cost(known[0])
    except ConfigError:
        return ""
    return f", or a model that has size {size} too ({share:.3g} at least)"


def _whole(shares: Mapping[int, float], steps: int) -> dict[int, int]:
    """Whole steps by largest remainder: they add up."""
    exact = {size: share * steps for size, share in shares.items()}
    counts = {size: math.floor(value + 1e-9) for size, value in exact.items()}
    by_remainder = sorted(exact, key=lambda size: counts[size] - exact[size])
    for size in by_remainder[: steps - sum(counts.values())]:
        counts[size] += 1
    return counts


def _ordered(counts: Mapping[int, int], order: Order) -> Sizes:
    if order == "interleaved":
        places = [((k + 0.5) / count, -size) for size, count in counts.items() for k in range(count)]
        return tuple(-size for _, size in sorted(places))
    sizes = sorted(counts, reverse=order == "weak-first")
    return tuple(size for size in sizes for _ in range(counts[size]))
