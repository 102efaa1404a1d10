"""From a protocol to its extractor: weights are verified before they are read."""

from __future__ import annotations

from ditbench.harness.assets import require, verified
from ditbench.harness.errors import InputError
from ditbench.harness.quality.definitions import definition
from ditbench.harness.quality.extractors.extractor import Extractor
from ditbench.harness.quality.protocols import QualityProtocol


def build_extractor(chosen: QualityProtocol, device: str) -> Extractor:
    """The extractor of a protocol on ``device``. Raises InputError: weights absent, changed, or of another model."""
    extractor = build_extractor_of(chosen.name, device)
    if extractor.sha256 != chosen.extractor_sha256:
        raise InputError(f"the weights of {extractor.name} changed since the plan was made")
    return extractor


def build_extractor_of(name: str, device: str) -> Extractor:
    """The extractor of the protocol called ``name``, whatever the reference. Raises InputError."""
    chosen = definition(name)
    if chosen.asset is None:
        return chosen.build(None, chosen.digest(), device)
    entry = require(chosen.asset, f"protocol {name}")
    found = chosen.build(entry.path, verified(entry), device)
    if found.name != chosen.extractor:
        raise InputError(f"{entry.path} holds {found.name}; protocol {name} reads {chosen.extractor}")
    return found
