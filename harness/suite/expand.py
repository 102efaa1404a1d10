"""A suite's cells -> drafts: ``defaults`` merged under each, ``matrix`` multiplied out, names given.

Nothing is looked up here: that a method or a checkpoint exists is for ``ditbench.harness.suite.plan`` to see.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from ditbench.harness.errors import InputError, did_you_mean
from ditbench.harness.suite.facts import facts_at
from ditbench.harness.suite.load import LoadedSuite, expand_shorthand
from ditbench.harness.suite.positions import Node, merge
from ditbench.harness.suite.schema import NAME_PATTERN, SHORTHAND, CellFields, Decoder, Guidance, Sampler
from ditbench.harness.suite.validation import keys_at, validate
from ditbench.methods import registry

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
# Fields that a default name always shows, and fields that have their own column beside the variant's.
_NAMED = {"method", "sampler", "sampler.name", "steps", "guidance", "guidance.scale"}
_DEFAULT_SAMPLERS = {"noise": "ddpm", "velocity": "euler"}
_COLUMNS = _NAMED | {"modifiers", "device", "dtype", "seed", "measure", "dataset", "timeout_s", "published"}


@dataclass(frozen=True)
class Settings:
    """A cell's fields with the built-in defaults filled in. ``sampler.name`` is set; ``steps`` are 0 where the sampler
    chooses its own."""

    method: str
    sampler: Sampler
    seed: int
    config: dict[str, Any]
    modifiers: tuple[dict[str, Any], ...]
    conditions: dict[str, Any]
    weights: str | None
    steps: int
    guidance: Guidance
    dataset: str | None
    device: str
    dtype: str
    mode: str
    attention: str
    decoder: Decoder | None
    published: tuple[str, ...]
    measure: tuple[str, ...]
    batch: int | None
    timeout_s: float | None


@dataclass(frozen=True)
class Draft:
    """One cell. ``node`` holds its merged fields, each with its place; its own place is the cell's."""

    name: str
    variant: str
    settings: Settings
    node: Node


def expand(loaded: LoadedSuite) -> list[Draft]:
    """All cells in the suite's order, the last key of a ``matrix`` varying fastest.

    Raises InputError for a sweep above ``limits.max_cells`` (before anything is multiplied out), for matrix
    keys and values that no cell takes, and for names that are unsafe or taken.
    """
    _refuse_huge(loaded)
    drafts: dict[str, Draft] = {}
    for index in range(len(loaded.suite.cells)):
        cell = loaded.root.nearest(("cells", index))
        for draft in _expand_cell(loaded, cell):
            if draft.name in drafts:
                raise _duplicate(draft, drafts[draft.name], cell)
            drafts[draft.name] = draft
    return list(drafts.values())


def _duplicate(draft: Draft, first: Draft, cell: Node) -> InputError:
    swept = next(iter(_children(cell.child("matrix"))), None)
    hint = f"; use what is swept in the name, as in '{{{swept}}}'" if swept else ""
    message = f"duplicate cell name {draft.name!r} (first in line {first.node.position.line}){hint}"
    return InputError(message, (cell.child("name") or cell).position)


def _refuse_huge(loaded: LoadedSuite) -> None:
    allowed, total = loaded.suite.limits.max_cells, 0
    crossed = None
    for index, cell in enumerate(loaded.suite.cells):
        total += math.prod(len(values) for values in (cell.matrix or {}).values())
        if total > allowed and crossed is None:
            crossed = loaded.position_of(("cells", index, "matrix"))
    if crossed is not None:
        raise InputError(f"the suite makes {total:,} cells, more than limits.max_cells = {allowed:,}", crossed)


def _expand_cell(loaded: LoadedSuite, cell: Node) -> Iterator[Draft]:
    own = {name: child for name, child in _children(cell).items() if name not in ("name", "variant", "matrix")}
    base = merge(replace(cell, value=_children(loaded.root.child("defaults"))), replace(cell, value=own))
    matrix = _children(cell.child("matrix"))
    for key, values in matrix.items():
        _check_matrix_key(key, values)
    choices = [values.value for values in matrix.values() if isinstance(values.value, list)]
    for combination in product(*choices):
        swept = dict(zip(matrix, combination, strict=True))
        node = base
        for key, value in swept.items():
            node = replace(merge(node, _overlay(key, value)), position=cell.position)
        settings = _settings(validate(CellFields, node), loaded.suite.seed, node)
        yield Draft(_name(cell, settings, swept), _variant(cell, settings, swept), settings, node)


def _children(node: Node | None) -> dict[str, Node]:
    return node.value if node is not None and isinstance(node.value, dict) else {}


def _check_matrix_key(key: str, values: Node) -> None:
    heads = keys_at(CellFields, ()) or []
    known = heads + [f"{head}.{part}" for head in SHORTHAND for part in keys_at(CellFields, (head,)) or []]
    is_config = key.startswith("config.") and all(key.split("."))
    if key not in known and not is_config:
        raise InputError(f"no cell has a field {key!r}{did_you_mean(key, known)}", values.key or values.position)


def _overlay(key: str, value: Node) -> Node:
    """``guidance.scale`` -> {guidance: {scale: value}}, every level at the value's place."""
    for part in reversed(key.split(".")):
        value = Node({part: value}, value.position)
    return expand_shorthand(value)


def _settings(fields: CellFields, suite_seed: int, node: Node) -> Settings:
    if fields.method is None:
        raise InputError("this cell has no method: name one here or in defaults", node.position)
    sampler = fields.sampler or Sampler()
    name = sampler.name or _DEFAULT_SAMPLERS[facts_at(fields.method, fields.config or {}, node).predicts]
    try:
        adaptive = registry.samplers()[name].adaptive
    except registry.UnknownNameError as error:
        raise InputError(str(error), node.nearest(("sampler", "name")).position) from None
    if adaptive and fields.steps is not None:
        raise InputError(
            f"steps: {name} chooses its own; set sampler.rtol and sampler.atol, and steps: null over a default",
            node.nearest(("steps",)).position,
        )
    return Settings(
        method=fields.method,
        sampler=sampler.model_copy(update={"name": name}),
        seed=suite_seed if fields.seed is None else fields.seed,
        config=fields.config or {},
        modifiers=tuple(fields.modifiers or ()),
        conditions={} if fields.conditions is None else fields.conditions.model_dump(),
        weights=fields.weights,
        steps=0 if adaptive else 50 if fields.steps is None else fields.steps,
        guidance=fields.guidance or Guidance(),
        dataset=fields.dataset,
        device=fields.device or "cpu",
        dtype=fields.dtype or "float32",
        mode=fields.mode or "eager",
        attention=fields.attention or "auto",
        decoder=fields.decoder,
        published=tuple(fields.published or ()),
        measure=tuple(fields.measure or ("flops",)),
        batch=fields.batch,
        timeout_s=fields.timeout_s,
    )


def _name(cell: Node, settings: Settings, swept: Mapping[str, Node]) -> str:
    template = cell.child("name")
    if template is not None and isinstance(template.value, str):
        name, place = _fill(template, settings), template.position
    else:
        words = [settings.method, str(settings.sampler.name), *([str(settings.steps)] if settings.steps else [])]
        if settings.guidance.scale != 1.0:
            words.append(f"g{text_of(settings.guidance.scale)}")
        words += [name for each in settings.modifiers for name in each]
        others = [(key, value) for key, value in swept.items() if key not in _NAMED]
        words += [f"{key.split('.')[-1]}-{text_of(value.plain())}" for key, value in others]
        name, place = re.sub(r"[^A-Za-z0-9._+-]+", "-", "-".join(words)), cell.position
    if not re.fullmatch(NAME_PATTERN.strip("^$"), name):
        raise InputError(f"{name[:100]!r} is not a cell name: letters, digits and . _ + - only, 80 at most", place)
    return name


def _variant(cell: Node, settings: Settings, swept: Mapping[str, Node]) -> str:
    template = cell.child("variant")
    if template is not None and isinstance(template.value, str):
        return _fill(template, settings)
    shown = {key: text_of(value.plain()) for key, value in swept.items() if key not in _COLUMNS}
    words = [f"{key.removeprefix('config.')}={text}" for key, text in shown.items()]
    around = [
        " ".join([name, *(f"{key}={text_of(value)}" for key, value in (options or {}).items())])
        for each in settings.modifiers
        for name, options in each.items()
    ]
    return ", ".join([*([" + ".join(around)] if around else []), *words])


def _fill(template: Node, settings: Settings) -> str:
    """'{sampler}-g{guidance}' -> 'ddim-g1.5'. Only looks fields up: no code, no format specifications."""
    values: dict[str, Any] = {
        **vars(settings),
        "sampler": settings.sampler.model_dump(),
        "guidance": settings.guidance.model_dump(),
        "decoder": settings.decoder.model_dump() if settings.decoder else {"weights": None},
    }

    def look_up(match: re.Match[str]) -> str:
        value: Any = values
        for part in match[1].split("."):
            if not isinstance(value, dict) or part not in value:
                raise InputError(
                    f"{match[0]} is not a field of this cell{did_you_mean(match[1], values)}",
                    template.position,
                )
            value = value[part]
        return text_of(value[SHORTHAND[match[1]]] if match[1] in SHORTHAND else value)

    return _PLACEHOLDER.sub(look_up, str(template.value))


def text_of(value: Any) -> str:
    """A value as names show it: 1.50 -> '1.5', 2.0 -> '2', null -> 'none', 'zoo:x', 'asset:x' and 'a/x.pt' -> 'x'."""
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "none"
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    if isinstance(value, list | tuple):
        return "-".join(text_of(item) for item in value)
    if isinstance(value, dict):
        return "-".join(f"{key}-{text_of(item)}" for key, item in value.items())
    text = str(value).removeprefix("zoo:").removeprefix("asset:")
    return Path(text).stem if "/" in text else text
