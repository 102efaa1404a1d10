"""Quality protocols as values: two figures may stand in one column only if their protocol ids are equal.

A protocol is everything between generated arrays and a figure: quantisation, resize, extractor and its digest,
reference and its digest, estimators and their version. Planning reads ids only and never imports torch.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from harness.errors import InputError, did_you_mean
from methods.zoo import manifest

# SHA-256 of the 1,797 reference images after quantisation: uint8, (1797, 1, 8, 8), C order.
DIGITS_REFERENCE_SHA256 = "b41ca9fd335466eee997366c2e6f6bbe0a1b4582afe091fc4eba35f4a254182f"


@dataclass(frozen=True)
class QualityProtocol:
    """What defines a figure. ``version`` changes when an estimator changes what it reports."""

    name: str
    version: int
    quantisation: str
    resize: str
    extractor: str
    extractor_sha256: str
    reference: str
    reference_sha256: str
    estimators: str

    @property
    def id(self) -> str:
        """Short and unique: name, version and the first 8 hex digits of a digest of all fields."""
        text = json.dumps(asdict(self), sort_keys=True)
        return f"{self.name}-v{self.version}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def digits_protocol() -> QualityProtocol:
    """The embedded default: features of the shipped digit classifier, all 1,797 digits as the reference."""
    return QualityProtocol(
        name="digits",
        version=1,
        quantisation="clamp(127.5 x + 128, 0, 255) truncated to uint8",
        resize="none (8x8)",
        extractor="digit-classifier, 64 features",
        extractor_sha256=str(manifest()["digit-classifier"]["sha256"]),
        reference="scikit-learn digits, all 1797",
        reference_sha256=DIGITS_REFERENCE_SHA256,
        estimators="Fréchet, unbiased cubic MMD, 3-NN precision and recall, recognised share; 10-block jackknife",
    )


PROTOCOLS = {"digits": digits_protocol}


def protocol(name: str) -> QualityProtocol:
    """The protocol of that name. Raises InputError with a suggestion."""
    if name not in PROTOCOLS:
        hint = did_you_mean(name, PROTOCOLS) or f" (known: {', '.join(PROTOCOLS)})"
        raise InputError(f"unknown quality protocol {name!r}{hint}")
    return PROTOCOLS[name]()


def protocol_id(name: str) -> str:
    """The id that stands beside every figure of protocol ``name``. Raises InputError."""
    return protocol(name).id
