"""Reference statistics: read from ADM's npz or from one that ``ditbench reference`` made; made from any images."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ditbench.harness.assets import verified
from ditbench.harness.errors import InputError
from ditbench.harness.quality.definitions import definition
from ditbench.harness.quality.extractors.extractor import Extractor
from ditbench.harness.quality.features import FeatureCache, FeatureSet, Progress, collect, merged
from ditbench.harness.quality.images.source import ArrayImages, ImageSource, open_images
from ditbench.harness.quality.protocols import QualityProtocol, reference_entry
from ditbench.harness.quality.statistics import Moments
from ditbench.harness.store.arrays import npz_names, read_arrays, write_npz

# ADM's reference holds 10,000 images beside the statistics of all: as many features are kept here.
KEPT = 10_000


@dataclass(frozen=True)
class Reference:
    """What samples are compared with.

    moments   Fréchet statistics of ``features``; ``spatial`` those of the sFID features, None if there are none
    features  (m, d) float32 of some or all reference images, None with the reason in ``without``
    count     images behind the statistics; None where the file does not tell
    images    the images themselves, where there are some
    """

    moments: Moments
    spatial: Moments | None
    features: NDArray[np.float32] | None
    without: str
    count: int | None
    images: ImageSource | None = None


def load_reference(
    protocol: QualityProtocol,
    name: str | None,
    extractor: Extractor,
    *,
    batch: int,
    cache: FeatureCache | None = None,
    progress: Progress | None = None,
) -> Reference:
    """The protocol's reference, after its digest was verified. Raises InputError: wrong digest, wrong content.

    ``name`` is what the user called it (None for a protocol that ships its own). Images inside ADM's npz, or a folder
    of images in place of statistics, are run through the extractor; ``cache`` keeps their features.
    """
    own = definition(protocol.name).reference
    if own is not None:
        images = ArrayImages(own.images(protocol.reference_sha256), protocol.reference)
        return _of_images(images, extractor, batch, cache, progress)
    entry = reference_entry(protocol.name, name)
    if verified(entry) != protocol.reference_sha256:
        raise InputError(f"reference {entry.path} changed since the plan was made")
    if entry.path.is_dir() or "mu" not in npz_names(entry.path):
        return _of_images(open_images(entry.path), extractor, batch, cache, progress)
    return _of_statistics(entry.path, protocol, extractor, batch, cache, progress)


def make_reference(
    source: ImageSource,
    out: Path,
    extractor: Extractor,
    *,
    protocol: str,
    count: int,
    batch: int,
    cache: FeatureCache | None = None,
    progress: Progress | None = None,
) -> str:
    """Write the statistics of the first ``count`` images to ``out``; returns the file's SHA-256.

    Names as in ADM's npz (mu, sigma, mu_s, sigma_s, float64), beside them n, features (the first 10,000, float32) and
    made_by: JSON that names the extractor, so that another extractor's statistics are refused.
    """
    found = collect(source, extractor, count=count, batch=batch, cache=cache, progress=progress)
    moments = moments_of(found, "features")
    arrays: dict[str, Any] = {"mu": moments.mean, "sigma": moments.covariance}
    if "spatial" in found.statistics:
        spatial = moments_of(found, "spatial")
        arrays |= {"mu_s": spatial.mean, "sigma_s": spatial.covariance}
    arrays |= {
        "n": count,
        "features": found.arrays["features"][:KEPT],
        "made_by": json.dumps({"protocol": protocol, **asdict(_maker(extractor))}, sort_keys=True),
    }
    return write_npz(out, **arrays)


def moments_of(found: FeatureSet, kind: str) -> Moments:
    """Mean and covariance of all images' features of a kind ('features', 'spatial')."""
    return merged(found.statistics[kind]).moments()


@dataclass(frozen=True)
class _Maker:
    extractor: str
    extractor_sha256: str
    resize: str


def _maker(extractor: Extractor) -> _Maker:
    return _Maker(extractor.name, extractor.sha256, extractor.resize)


def _of_images(
    source: ImageSource, extractor: Extractor, batch: int, cache: FeatureCache | None, progress: Progress | None
) -> Reference:
    if len(source) < 2:
        raise InputError(f"reference {source.name}: {len(source)} image is too few for statistics")
    found: FeatureSet = collect(source, extractor, count=len(source), batch=batch, cache=cache, progress=progress)
    spatial = moments_of(found, "spatial") if "spatial" in found.statistics else None
    return Reference(moments_of(found, "features"), spatial, found.arrays["features"], "", found.count, source)


def _of_statistics(
    path: Path,
    protocol: QualityProtocol,
    extractor: Extractor,
    batch: int,
    cache: FeatureCache | None,
    progress: Progress | None,
) -> Reference:
    names = set(npz_names(path))
    small = read_arrays(path, [n for n in ("mu", "sigma", "mu_s", "sigma_s", "n", "made_by", "features") if n in names])
    count = int(small["n"]) if "n" in small else None
    if "made_by" in small:
        _check_maker(path, json.loads(str(small["made_by"])), protocol.name, extractor)
    moments = _moments(path, small, "mu", "sigma", extractor.dims["features"], count)
    spatial = None
    if "spatial" in extractor.dims and "mu_s" in names:
        spatial = _moments(path, small, "mu_s", "sigma_s", extractor.dims["spatial"], count)
    features, without = small.get("features"), ""
    source = open_images(path) if features is None and "arr_0" in names else None
    if source is not None:
        features = collect(source, extractor, count=len(source), batch=batch, cache=cache, progress=progress).arrays[
            "features"
        ]
    elif features is None:
        without = f"{path.name} holds statistics only, no images (arr_0) and no features"
    elif features.ndim != 2 or features.shape[1] != extractor.dims["features"]:
        raise InputError(f"{path}: features {features.shape} are not (m, {extractor.dims['features']})")
    return Reference(moments, spatial, features, without, count, source)


def _check_maker(path: Path, made: dict[str, str], protocol: str, extractor: Extractor) -> None:
    for name, value in asdict(_maker(extractor)).items():
        if made.get(name) != value:
            raise InputError(
                f"{path} was made with another {name.replace('_', ' ')} ({str(made.get(name))[:48]}) than protocol "
                f"{protocol} uses ({value[:48]}): make it again with `ditbench reference --protocol {protocol}`"
            )


def _moments(path: Path, arrays: dict[str, NDArray[Any]], mu: str, sigma: str, dim: int, count: int | None) -> Moments:
    if sigma not in arrays:
        raise InputError(f"{path}: there is {mu!r} but no {sigma!r}")
    mean, covariance = (np.asarray(arrays[name], dtype=np.float64) for name in (mu, sigma))
    if mean.shape != (dim,) or covariance.shape != (dim, dim):
        raise InputError(
            f"{path}: {mu} {mean.shape} and {sigma} {covariance.shape} are not the ({dim},) and ({dim}, {dim}) of the "
            "protocol's extractor"
        )
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise InputError(f"{path}: {mu} or {sigma} contains NaN or infinity")
    return Moments(count or 0, mean, covariance)
