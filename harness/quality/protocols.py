"""Quality protocols as values: two figures may stand in one column only if their protocol ids are equal.

A protocol is everything between generated arrays and a figure: quantisation, resize, extractor and its digest,
reference and its digest, estimators and their version. Planning reads ids only and never imports torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ditbench.harness.assets import KNOWN, Entry, digest_of, load_assets, require
from ditbench.harness.errors import InputError, did_you_mean
from ditbench.harness.quality.definitions import definition
from ditbench.harness.quality.metrics import metric_of

# backbone of LPIPS as suites name it -> its weights in ``ditbench.toml``
LPIPS_ASSETS = {"alex": "lpips-alexnet", "vgg": "lpips-vgg16", "squeeze": "lpips-squeezenet"}

_QUANTISATION = "clamp(127.5 x + 128, 0, 255) truncated to uint8"


@dataclass(frozen=True)
class QualityProtocol:
    """What defines a figure. ``reference`` is a name for people: the digest alone counts.

    metrics  of other distributions, each with version and code; they count where there are some
    """

    name: str
    version: int | str
    quantisation: str
    resize: str
    extractor: str
    extractor_sha256: str
    reference: str
    reference_sha256: str
    estimators: str
    metrics: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """Short and unique: name, version and the first 8 hex digits of a digest of all fields that count."""
        counted = {name: value for name, value in asdict(self).items() if name != "reference"}
        if not self.metrics:
            del counted["metrics"]
        text = json.dumps(counted, sort_keys=True)
        return f"{self.name}-v{self.version}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"

    def at(self, samples: int) -> str:
        """What stands beside a figure of that many samples."""
        return f"{self.id}@{samples}"


def protocol(name: str, reference: str | None = None, metrics: Sequence[str] = ()) -> QualityProtocol:
    """The protocol of that name against a reference: a name in ``ditbench.toml`` or a file; with ``metrics`` beside its
    own figures.

    Reads the user's file of assets, and files whose digest it does not declare. Raises InputError: unknown protocol or
    metric, an extractor or reference that is not there.
    """
    chosen = definition(name)
    own = chosen.reference
    if own is not None and reference is not None:
        raise InputError(f"protocol {name} has its own reference: leave 'reference' out")
    extractor_sha256 = chosen.digest() if chosen.asset is None else digest_of(require(chosen.asset, f"protocol {name}"))
    if own is not None:
        known_as, reference_sha256 = own.name, own.sha256
    else:
        entry = reference_entry(name, reference)
        known_as, reference_sha256 = entry.name, digest_of(entry)
    return QualityProtocol(
        name=name,
        version=chosen.version,
        quantisation=_QUANTISATION,
        resize=chosen.resize,
        extractor=chosen.extractor,
        extractor_sha256=extractor_sha256,
        reference=known_as,
        reference_sha256=reference_sha256,
        estimators=chosen.estimators,
        metrics=tuple(metric_of(each).stamp for each in dict.fromkeys(metrics)),
    )


def reference_entry(protocol: str, reference: str | None) -> Entry:
    """The file behind ``reference``. Raises InputError if none is named or it is not there."""
    assets = load_assets()
    known = ", ".join(sorted(assets.references)) or "none"
    if reference is None:
        raise InputError(
            f"protocol {protocol} needs a reference: a name from ditbench.toml ({known}) or an npz that "
            "`ditbench reference` made"
        )
    if assets.reference(reference) is not None:
        return require(reference, f"protocol {protocol}")
    path = Path(reference).expanduser()
    if path.exists():
        return Entry(name=path.name, path=path.absolute(), sha256=None, position=None)
    if reference in KNOWN and KNOWN[reference].kind == "reference":
        return require(reference, f"protocol {protocol}")  # raises: says which published file this is
    hint = did_you_mean(reference, assets.references) or f" (in ditbench.toml: {known})"
    raise InputError(f"reference {reference!r} is neither a name in ditbench.toml nor a file{hint}")
