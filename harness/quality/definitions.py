"""What quality protocols fix before files are named: one value each. Never imports torch by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ditbench.harness.errors import InputError, did_you_mean
from ditbench.harness.quality.plugged import extractors, plugged
from ditbench.methods.entries import UnknownNameError, imported
from ditbench.methods.zoo import manifest

if TYPE_CHECKING:
    from ditbench.harness.quality.extractors.extractor import Extractor

# SHA-256 of the 1,797 reference images after quantisation: uint8, (1797, 8, 8, 1), C order.
DIGITS_REFERENCE_SHA256 = "b41ca9fd335466eee997366c2e6f6bbe0a1b4582afe091fc4eba35f4a254182f"

_SET_FIGURES = "Fréchet and its limit, 3-NN precision and recall, 5-NN density and coverage; 10-block jackknife"
_SUBSETS = "KID of 100 subsets of 1000"
_UNBIASED = "unbiased cubic and Gaussian MMD"

Build = Callable[[Path | None, str, str], "Extractor"]
"""File of weights (None: shipped), its SHA-256, device -> extractor."""


@dataclass(frozen=True)
class OwnReference:
    """A reference that comes with a protocol.

    dataset  what a suite calls the data that cells which are compared with it were trained on
    images   SHA-256 -> (n, H, W, C) uint8; raises InputError where they are others
    """

    name: str
    sha256: str
    dataset: str
    images: Callable[[str], Any]


@dataclass(frozen=True)
class Definition:
    """What a protocol fixes before files are named.

    version     changes when an estimator changes what it reports
    asset       the extractor's weights in ``ditbench.toml``; None: it brings them
    digest      SHA-256 of the weights, or of the code, that it brings
    extractor   its name, and ``resize`` how images come to its size: both in words
    dims        name of each kind of features -> its width
    build       makes the extractor
    samples     how many the published protocol asks for; None: as many as there are
    estimators  in words
    subsets     whether KID is the mean of 100 subsets of 1000, as papers with Inception report it; else the unbiased
                estimate of all samples
    recognises  whether the logits are of the classes that samples were made for, so that there is an accuracy
    shape       (H, W, C) of the images that it reads; None: of any
    reference   None: the user names one
    """

    name: str
    summary: str
    version: int | str
    asset: str | None
    extractor: str
    resize: str
    dims: Mapping[str, int]
    build: Build
    estimators: str
    digest: Callable[[], str] = lambda: ""
    samples: int | None = None
    subsets: bool = True
    recognises: bool = False
    shape: tuple[int, int, int] | None = None
    reference: OwnReference | None = field(default=None)


class Definitions:
    """Protocols by name: those that are registered, then one for every extractor of another distribution."""

    def __init__(self) -> None:
        self._known: dict[str, Definition] = {}

    def add(self, definition: Definition) -> None:
        """Raises ValueError when the name is taken."""
        if definition.name in self._known:
            raise ValueError(f"quality protocol {definition.name!r} is registered twice")
        self._known[definition.name] = definition

    def names(self) -> list[str]:
        return [*self._known, *(name for name in extractors().names() if name not in self._known)]

    def summaries(self) -> Iterator[tuple[str, str]]:
        """Names with one line each; modules of other distributions are not imported."""
        yield from ((each.name, each.summary) for each in self._known.values())
        for entry in extractors():
            if entry.name not in self._known:
                yield entry.name, f"figures in the features of this extractor, {entry.summary}"

    def __getitem__(self, name: str) -> Definition:
        """Raises InputError: nobody knows the name, or its module cannot be used."""
        if name in self._known:
            return self._known[name]
        if name not in extractors():
            hint = did_you_mean(name, self.names()) or f" (known: {', '.join(self.names())})"
            raise InputError(f"unknown quality protocol {name!r}{hint}")
        return _of_extractor(name)


def _of_extractor(name: str) -> Definition:
    try:
        given = plugged(extractors()[name])
    except UnknownNameError as error:
        raise InputError(str(error)) from None
    return Definition(
        name=name,
        summary=given.origin,
        version=given.version,
        asset=None,
        digest=lambda: given.sha256,
        extractor=f"{given.name} {given.version}",
        resize=given.resize,
        dims=given.dims,
        build=lambda _path, _sha256, device: given.build(device),
        estimators=f"{_SET_FIGURES}; {_UNBIASED}",
        subsets=False,
    )


def _later(target: str) -> Callable[..., Any]:
    """A function of a module that imports torch, imported when it is called."""
    return lambda *arguments: imported(f"ditbench.harness.quality.extractors.{target}")(*arguments)


@cache
def definitions() -> Definitions:
    """All protocols."""
    registry = Definitions()
    published = f"{_SET_FIGURES}; {_SUBSETS}; inception score of blocks of 5000"
    registry.add(
        Definition(
            name="digits",
            summary="shipped digit classifier, all 1,797 digits of scikit-learn: the embedded default",
            version=2,
            asset=None,
            digest=lambda: str(manifest()["digit-classifier"]["sha256"]),
            extractor="digit-classifier, 64 features",
            resize="none (8x8)",
            dims={"features": 64, "logits": 10},
            build=_later("digits:shipped"),
            estimators=f"{_SET_FIGURES}; {_UNBIASED}; recognised share",
            subsets=False,
            recognises=True,
            shape=(8, 8, 1),
            reference=OwnReference(
                "scikit-learn digits, all 1797", DIGITS_REFERENCE_SHA256, "digits", _later("digits:reference_images")
            ),
        )
    )
    registry.add(
        Definition(
            name="adm",
            summary="Inception of the 2015 graph as ADM's evaluator uses it: what DiT papers report",
            version=1,
            asset="inception-2015",
            extractor="inception-2015: pool3, Mixed_6d spatial, bias-free logits",
            resize="TF1 bilinear to 299x299",
            dims={"features": 2048, "logits": 1008, "spatial": 17 * 17 * 7},
            build=_later("inception:adm_inception"),
            estimators=published,
            samples=50_000,
        )
    )
    registry.add(
        Definition(
            name="clean",
            summary="clean-fid's antialiased bicubic resize before the same Inception",
            version=1,
            asset="inception-2015",
            extractor="inception-2015: pool3, bias-free logits",
            resize="bicubic with antialiasing to 299x299 in float, clipped to 0..255",
            dims={"features": 2048, "logits": 1008},
            build=_later("inception:clean_inception"),
            estimators=published,
            samples=50_000,
        )
    )
    registry.add(
        Definition(
            name="dinov2",
            summary="Fréchet distance in DINOv2 ViT-L/14 features",
            version=1,
            asset="dinov2-vitl14",
            extractor="dinov2-vitl14: class token after the last norm",
            resize="bicubic with antialiasing to 224x224, rounded to grey levels after rows and after columns",
            dims={"features": 1024},
            build=_later("dinov2:dinov2"),
            estimators=f"{_SET_FIGURES}; {_SUBSETS}",
            samples=50_000,
        )
    )
    return registry


def definition(name: str) -> Definition:
    """The protocol's definition. Raises InputError with a suggestion."""
    return definitions()[name]
