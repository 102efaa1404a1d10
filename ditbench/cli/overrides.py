"""``--set key=value``: overrides of a method's config, read as YAML values."""

from __future__ import annotations

from typing import Any

import yaml

from ditbench.harness.errors import InputError
from ditbench.harness.store.records import CellSpec
from ditbench.methods.registry import UnknownNameError, methods, predicts


def parse_overrides(settings: list[str]) -> dict[str, Any]:
    """['input_size=64'] -> {'input_size': 64}. Raises InputError."""
    config: dict[str, Any] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key:
            raise InputError(f"--set {setting}: write KEY=VALUE, as in --set input_size=64")
        try:
            config[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise InputError(f"--set {setting}: {value!r} is not a value") from None
    return config


def spec_of(method: str, settings: list[str], **fields: Any) -> CellSpec:
    """A cell for a one-off measurement; models of pixels sample with clipping.

    Raises InputError for an unknown method or config key.
    """
    from ditbench.harness.sample.generate import checkpoint_problem

    try:
        methods()[method]
    except UnknownNameError as error:
        raise InputError(str(error)) from None
    config = parse_overrides(settings)
    flows = predicts(method, config) == "velocity"
    options = {} if flows else {"clip": method.endswith("digits")}
    spec = CellSpec(**{"cell": method, "method": method, "config": config,
                       "sampler": "euler" if flows else "ddim",
                       "sampler_options": options, "steps": 50, **fields})  # fmt: skip
    if (problem := checkpoint_problem(spec, None)) is not None:
        raise InputError(problem.message)
    return spec
