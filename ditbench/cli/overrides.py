"""``--set key=value``: overrides of a method's config, read as YAML values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from ditbench.harness.errors import InputError
from ditbench.harness.store.records import CellSpec
from ditbench.methods.errors import ConfigError
from ditbench.methods.facts import Facts
from ditbench.methods.registry import UnknownNameError, code_of, facts_of


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


def known_facts(method: str, config: Mapping[str, Any]) -> Facts:
    """What planning knows of a method. Raises InputError for an unknown method or config key."""
    try:
        return facts_of(method, config)
    except UnknownNameError as error:
        raise InputError(str(error)) from None
    except (ConfigError, TypeError) as error:
        raise InputError(f"{method}: {error}") from None


def spec_of(method: str, settings: list[str], **fields: Any) -> CellSpec:
    """A cell for a one-off measurement; models of pixels sample with clipping.

    Raises InputError for an unknown method or config key.
    """
    from ditbench.harness.sample.generate import checkpoint_problem

    config = parse_overrides(settings)
    facts = known_facts(method, config)
    flows = facts.predicts == "velocity"
    options = {} if flows else {"clip": facts.space.scale == 1}
    chosen = {"sampler": "euler" if flows else "ddim", "sampler_options": options, "steps": 50, **fields}
    spec = CellSpec(
        **{"cell": method, "method": method, "config": config, **chosen},
        imposed=facts.imposed,
        code=code_of(method, str(chosen["sampler"])),
    )
    if (problem := checkpoint_problem(spec, None)) is not None:
        raise InputError(problem.message)
    return spec
