"""Quality protocols as values: two figures may stand in one column only if their protocol ids are equal.

A protocol is everything between generated arrays and a figure: quantisation, resize, extractor and its digest,
reference and its digest, estimators and their version. Planning reads ids only and never imports torch.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from ditbench.harness.assets import KNOWN, Entry, digest_of, load_assets, require
from ditbench.harness.errors import InputError, did_you_mean
from ditbench.methods.zoo import manifest

# SHA-256 of the 1,797 reference images after quantisation: uint8, (1797, 8, 8, 1), C order.
DIGITS_REFERENCE_SHA256 = "b41ca9fd335466eee997366c2e6f6bbe0a1b4582afe091fc4eba35f4a254182f"

# backbone of LPIPS as suites name it -> its weights in ``ditbench.toml``
LPIPS_ASSETS = {"alex": "lpips-alexnet", "vgg": "lpips-vgg16", "squeeze": "lpips-squeezenet"}

_QUANTISATION = "clamp(127.5 x + 128, 0, 255) truncated to uint8"
_SET_FIGURES = "Fréchet and its limit, 3-NN precision and recall, 5-NN density and coverage; 10-block jackknife"
_SUBSETS = "KID of 100 subsets of 1000"


@dataclass(frozen=True)
class Definition:
    """What a protocol fixes before files are named.

    asset     the extractor's weights in ``ditbench.toml``; None: shipped
    samples   how many the published protocol asks for; None: as many as there are
    version   changes when an estimator changes what it reports
    """

    name: str
    summary: str
    version: int
    asset: str | None
    extractor: str
    resize: str
    samples: int | None
    estimators: str


DEFINITIONS = {
    each.name: each
    for each in (
        Definition(
            name="digits",
            summary="shipped digit classifier, all 1,797 digits of scikit-learn: the embedded default",
            version=2,
            asset=None,
            extractor="digit-classifier, 64 features",
            resize="none (8x8)",
            samples=None,
            estimators=f"{_SET_FIGURES}; unbiased cubic and Gaussian MMD; recognised share",
        ),
        Definition(
            name="adm",
            summary="Inception of the 2015 graph as ADM's evaluator uses it: what DiT papers report",
            version=1,
            asset="inception-2015",
            extractor="inception-2015: pool3, Mixed_6d spatial, bias-free logits",
            resize="TF1 bilinear to 299x299",
            samples=50_000,
            estimators=f"{_SET_FIGURES}; {_SUBSETS}; inception score of blocks of 5000",
        ),
        Definition(
            name="clean",
            summary="clean-fid's antialiased bicubic resize before the same Inception",
            version=1,
            asset="inception-2015",
            extractor="inception-2015: pool3, bias-free logits",
            resize="bicubic with antialiasing to 299x299 in float, clipped to 0..255",
            samples=50_000,
            estimators=f"{_SET_FIGURES}; {_SUBSETS}; inception score of blocks of 5000",
        ),
        Definition(
            name="dinov2",
            summary="Fréchet distance in DINOv2 ViT-L/14 features",
            version=1,
            asset="dinov2-vitl14",
            extractor="dinov2-vitl14: class token after the last norm",
            resize="bicubic with antialiasing to 224x224, rounded to grey levels after rows and after columns",
            samples=50_000,
            estimators=f"{_SET_FIGURES}; {_SUBSETS}",
        ),
    )
}


@dataclass(frozen=True)
class QualityProtocol:
    """What defines a figure. ``reference`` is a name for people: the digest alone counts."""

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
        """Short and unique: name, version and the first 8 hex digits of a digest of all fields that count."""
        counted = {name: value for name, value in asdict(self).items() if name != "reference"}
        text = json.dumps(counted, sort_keys=True)
        return f"{self.name}-v{self.version}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"

    def at(self, samples: int) -> str:
        """What stands beside a figure of that many samples."""
        return f"{self.id}@{samples}"


def definition(name: str) -> Definition:
    """The protocol's definition. Raises InputError with a suggestion."""
    if name not in DEFINITIONS:
        hint = did_you_mean(name, DEFINITIONS) or f" (known: {', '.join(DEFINITIONS)})"
        raise InputError(f"unknown quality protocol {name!r}{hint}")
    return DEFINITIONS[name]


def protocol(name: str, reference: str | None = None) -> QualityProtocol:
    """The protocol of that name against a reference: a name in ``ditbench.toml`` or a file.

    Reads the user's file of assets, and files whose digest it does not declare. Raises InputError: unknown protocol,
    an extractor or reference that is not there.
    """
    chosen = definition(name)
    if chosen.asset is None:
        if reference is not None:
            raise InputError(f"protocol {name} has its own reference: leave 'reference' out")
        extractor_sha256 = str(manifest()["digit-classifier"]["sha256"])
        known_as, reference_sha256 = "scikit-learn digits, all 1797", DIGITS_REFERENCE_SHA256
    else:
        extractor_sha256 = digest_of(require(chosen.asset, f"protocol {name}"))
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
