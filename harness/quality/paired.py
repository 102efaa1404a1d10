"""Paired figures: each sample of a cell against the baseline's sample of the same index, noise and label."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ditbench.harness.assets import require, verified
from ditbench.harness.errors import InputError
from ditbench.harness.quality.images.checks import CHANNELS
from ditbench.harness.quality.images.decoded import read_pictures
from ditbench.harness.quality.perceptual import Lpips, paired_summary, psnr, relative_error, ssim
from ditbench.harness.quality.protocols import LPIPS_ASSETS
from ditbench.harness.sample.quantise import quantise
from ditbench.harness.sample.shards import Shard, read_shard
from ditbench.harness.store.records import Quantity

UNITS = {"psnr": "dB"}

Compared = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class PairedResult:
    """values: psnr (dB), ssim, lpips, latent_error; detail: leave_one_out, identical pairs, what is not available."""

    values: dict[str, Quantity]
    detail: dict[str, Any]


def pair(
    ours: list[Path],
    theirs: list[Path],
    count: int,
    lpips: str | None,
    lpips_sha256: str | None,
    device: str,
    ours_pictures: list[Path] | None = None,
    theirs_pictures: list[Path] | None = None,
) -> PairedResult:
    """Mean figures of the first ``count`` pairs, with t intervals over pairs; shards are read one at a time.

    psnr, ssim and lpips are of the 8-bit images, latent_error (|a - b| / |b|) of what the sampler left. Images of
    latents are in the files of pictures, one a shard; both sides must come from one decoder. Pairs with equal images
    have no PSNR: it is the mean of the others, and ``detail`` says how many they are. A figure that the images do not
    allow (too small, not decoded) is left out with its reason. ValueError where the labels of a pair differ, and for
    pictures of one side only; InputError: a damaged file.
    """
    if (ours_pictures is None) != (theirs_pictures is None):
        raise ValueError("pictures of one side only make no pairs: decode the shards of both sides")
    decoded = None
    if ours_pictures is not None and theirs_pictures is not None:
        decoded = list(zip(ours_pictures, theirs_pictures, strict=True))
    metrics: dict[str, Compared] = {"psnr": psnr, "ssim": ssim}
    if lpips is not None:
        metrics["lpips"] = _lpips(lpips, lpips_sha256, device)
    found: dict[str, list[NDArray[np.float64]]] = {name: [] for name in (*metrics, "latent_error")}
    missing: dict[str, str] = {}
    for number, (a, b) in enumerate(_pairs(ours, theirs, count)):
        pictures = None if decoded is None else [_pictures(path, len(a.labels), device) for path in decoded[number]]
        for name, metric in metrics.items():
            if name in missing:
                continue
            try:
                images = pictures or [_images(each, device) for each in (a, b)]
                found[name].append(metric(*images).cpu().numpy())
            except ValueError as error:
                missing[name] = str(error)
        moved = relative_error(torch.from_numpy(a.samples), torch.from_numpy(b.samples))
        found["latent_error"].append(moved.numpy())
    values, without = {}, {}
    joined = {name: np.concatenate(each) for name, each in found.items() if each and name not in missing}
    equal = np.isinf(joined["psnr"]) if "psnr" in joined else joined["latent_error"] == 0
    for name, each in joined.items():
        estimate, loo = paired_summary(each)
        if np.isinf(estimate.value):
            missing[name] = "all pairs are equal"
            continue
        values[name] = Quantity(
            value=estimate.value,
            unit=UNITS.get(name, "1"),
            low=estimate.low,
            high=estimate.high,
            interval=estimate.method,
        )
        without[name] = list(loo)
    detail = {
        "samples": count,
        "identical": int(equal.sum()),
        "leave_one_out": without,
        "not_available": missing,
        "lpips": lpips,
        "lpips_sha256": lpips_sha256,
    }
    return PairedResult(values, detail)


def _lpips(net: str, sha256: str | None, device: str) -> Lpips:
    entry = require(LPIPS_ASSETS[net], f"paired LPIPS ({net})")
    if verified(entry) != sha256:
        raise InputError(f"{entry.path} changed since the plan was made")
    return Lpips(entry.path, net, device)


def _pairs(ours: list[Path], theirs: list[Path], count: int) -> Iterator[tuple[Shard, Shard]]:
    left = count
    for one, other in zip(ours, theirs, strict=True):
        a, b = read_shard(one), read_shard(other)
        if a.samples.shape != b.samples.shape or not np.array_equal(a.labels, b.labels):
            raise ValueError(f"{one.name}: shapes or labels differ from the baseline's, so these are no pairs")
        yield tuple(Shard(each.samples[:left], each.labels[:left]) for each in (a, b))  # type: ignore[misc]
        left -= len(a.labels)
        if left <= 0:
            return


def _images(shard: Shard, device: str) -> Tensor:
    if (channels := shard.samples.shape[1]) not in CHANNELS:
        raise ValueError(f"samples have {channels} channels: latents are not images before they are decoded")
    images = quantise(shard.samples).transpose(0, 2, 3, 1)
    return torch.from_numpy(np.ascontiguousarray(images)).to(device)


def _pictures(path: Path, count: int, device: str) -> Tensor:
    images = read_pictures(path)
    if len(images) < count:
        raise InputError(f"{path} holds {len(images)} pictures for {count} latents: delete it and run the suite again")
    return torch.from_numpy(images[:count]).to(device)
