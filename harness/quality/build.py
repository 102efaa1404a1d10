"""From a protocol to its extractor: weights are verified before they are read."""

from __future__ import annotations

from ditbench.harness.assets import require, verified
from ditbench.harness.errors import InputError
from ditbench.harness.quality.extractors.extractor import Extractor
from ditbench.harness.quality.protocols import QualityProtocol, definition


def build_extractor(chosen: QualityProtocol, device: str) -> Extractor:
    """The extractor of a protocol on ``device``. Raises InputError: weights absent, changed, or of another model."""
    extractor = build_extractor_of(chosen.name, device)
    if extractor.sha256 != chosen.extractor_sha256:
        raise InputError(f"the weights of {extractor.name} changed since the plan was made")
    return extractor


def build_extractor_of(name: str, device: str) -> Extractor:
    """The extractor of the protocol called ``name``, whatever the reference. Raises InputError."""
    asset = definition(name).asset
    if asset is None:
        from ditbench.harness.quality.extractors.digits import DigitExtractor

        return DigitExtractor()
    entry = require(asset, f"protocol {name}")
    sha256 = verified(entry)
    if name == "dinov2":
        from ditbench.harness.quality.extractors.dinov2 import dinov2

        found: Extractor = dinov2(entry.path, sha256, device)
        if found.name != definition(name).extractor:
            raise InputError(f"{entry.path} holds {found.name}; protocol {name} reads {definition(name).extractor}")
        return found
    from ditbench.harness.quality.extractors.inception import adm_inception, clean_inception

    build = {"adm": adm_inception, "clean": clean_inception}[name]
    return build(entry.path, sha256, device)
