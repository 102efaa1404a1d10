"""Distances between pairs of images or latents of the same seeds: PSNR, SSIM, LPIPS, relative error.

They say how far a cell moves the picture that the baseline makes, not whether the picture is good.
"""

from __future__ import annotations

import math
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ditbench.harness.errors import InputError, did_you_mean
from ditbench.harness.stats.intervals import Estimate, mean_interval
from ditbench.methods.torchvision_shim import ensure_torchvision_importable

SSIM_WINDOW = 7
LPIPS_LEAST = {"alex": 31, "vgg": 16, "squeeze": 17}  # pixels a side: below, a pooling layer has nothing left
_CHUNK_ELEMENTS = 2**20  # of each set at once, about; at least one image


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each pair, (n,) float64 dB: 10 log10(255^2 / mean squared error).

    a, b: (n, H, W, C) uint8 on one device. Infinity where both images are equal; ``paired_summary`` says what becomes
    of it in a mean. ValueError on other shapes and dtypes.
    """
    _check_images(a, b)
    return _chunked(_psnr, a, b)


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity of each pair, (n,) float64 in [-1, 1], mean over pixels and channels; 1: equal.

    a, b: (n, H, W, C) uint8 on one device, each side at least 7. Uniform 7x7 windows that lie inside the image, sample
    covariance, K1 = 0.01, K2 = 0.03, range 255: scikit-image's default, not the 11x11 Gaussian window of the paper.
    ValueError on smaller images, other shapes and dtypes. Source: Wang et al. 2004, IEEE TIP 13(4), section III.
    """
    _check_images(a, b)
    _check_sides(a, SSIM_WINDOW, "SSIM")
    return _chunked(_ssim, a, b)


def relative_error(a: Tensor, b: Tensor) -> Tensor:
    """|a - b| / |b| of each pair in the Euclidean norm over all elements, (n,) float64, at least 0.

    a, b: (n, ...) floats, the latents before decoding; b is the baseline. ValueError on unequal shapes, NaN, infinity
    and a baseline of zeros.
    """
    if a.shape != b.shape or a.ndim < 2:
        raise ValueError(f"latents {tuple(a.shape)} and {tuple(b.shape)} are no pairs of (n, ...)")
    return _chunked(_relative_error, a, b)


class Lpips:
    """LPIPS 0.1 of pairs of images: the lpips package's linear heads on a backbone read from a local file."""

    def __init__(self, backbone: Path, net: str = "alex", device: str = "cpu") -> None:
        """backbone: a state dict of torchvision's alexnet, vgg16 or squeezenet1_1 with their ImageNet weights.

        The caller verifies the file's digest: any weights of the right shapes load. Nothing is downloaded, and torch's
        random state stays as it was. InputError: unknown net, absent or unreadable file, weights of another network.
        """
        if net not in LPIPS_LEAST:
            raise InputError(f"LPIPS has no backbone {net!r}{did_you_mean(net, LPIPS_LEAST)}")
        weights = _backbone_weights(backbone)
        ensure_torchvision_importable()
        import lpips

        # lpips first makes a whole random network; torchvision warns that lpips calls it in an old way
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=UserWarning, module="torchvision")
            model = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
        # slice2.3.weight of lpips is features.3.weight of torchvision
        names = {name: f"features.{name.split('.', 1)[1]}" for name in model.net.state_dict()}
        found = {name for name in weights if name.startswith("features.")}
        if found != set(names.values()):
            raise InputError(f"{backbone} is no state dict of the torchvision network that LPIPS {net!r} needs")
        try:
            model.net.load_state_dict({name: weights[source] for name, source in names.items()})
        except RuntimeError as error:
            raise InputError(f"{backbone} does not fit LPIPS {net!r}: {error}") from None
        self.net = net
        self._device = torch.device(device)
        self._model = model.to(self._device)

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """The distance of each pair, (n,) float64, at least 0; 0: equal. The network runs in float32, never in TF32.

        a, b: (n, H, W, 3) uint8; no resize, so values at different sizes are not compared. ValueError on images smaller
        than ``LPIPS_LEAST`` pixels a side, other shapes and dtypes.
        """
        _check_images(a, b)
        if a.shape[3] != 3:
            raise ValueError(f"LPIPS needs images of three channels, not {a.shape[3]}")
        _check_sides(a, LPIPS_LEAST[self.net], f"LPIPS ({self.net})")
        return _chunked(self._distances, a, b)

    def _distances(self, a: Tensor, b: Tensor) -> Tensor:
        one, two = (x.to(self._device).permute(0, 3, 1, 2).to(torch.float32) / 127.5 - 1.0 for x in (a, b))
        with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            distances: Tensor = self._model(one, two)
        return distances.reshape(-1).to(torch.float64)


def paired_summary(values: ArrayLike, blocks: int = 10) -> tuple[Estimate, tuple[float, ...]]:
    """The mean of one figure over (n,) pairs with Student's t interval, and the mean without each block of pairs.

    The blocks are contiguous and equal to within one pair, so those of two runs over the same seeds belong together;
    there are none below two pairs a block. +infinity is the PSNR of equal images: such pairs are left out of the means
    (their number belongs beside the figure), which makes the runs look less alike than they are. The value is infinity
    where all pairs are equal. ValueError on NaN, -infinity or no values.
    """
    series = np.asarray(values, dtype=np.float64)
    if series.ndim != 1 or len(series) == 0 or np.isnan(series).any() or np.isneginf(series).any():
        raise ValueError("paired values must be a non-empty series of numbers, +infinity allowed")
    if blocks < 2:
        raise ValueError("leaving blocks out needs at least two")
    finite = np.isfinite(series)
    if not finite.any():
        return Estimate(math.inf, None, None, f"no interval: all {len(series)} pairs are equal"), ()
    rest = [np.delete(series, part) for part in np.array_split(np.arange(len(series)), blocks)]
    rest = [each[np.isfinite(each)] for each in rest]
    enough = len(series) >= 2 * blocks and all(len(each) for each in rest)
    return mean_interval(series[finite]), tuple(float(each.mean()) for each in rest) if enough else ()


def _psnr(a: Tensor, b: Tensor) -> Tensor:
    # uint8 arithmetic wraps around: a constant error of 16 must not vanish in a square of 256
    squared = (a.to(torch.float64) - b.to(torch.float64)).square().flatten(1).mean(dim=1)
    return 10.0 * torch.log10(255.0**2 / squared)


def _ssim(a: Tensor, b: Tensor) -> Tensor:
    x, y = a.to(torch.float64), b.to(torch.float64)
    count = SSIM_WINDOW**2
    # sums of integers are exact in float64, so no digits are lost in the differences below
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = (_window_sums(v) / count for v in (x, y, x * x, y * y, x * y))
    sample = count / (count - 1)
    variances = sample * (mean_xx - mean_x * mean_x + mean_yy - mean_y * mean_y)
    covariance = sample * (mean_xy - mean_x * mean_y)
    c1, c2 = (0.01 * 255.0) ** 2, (0.03 * 255.0) ** 2
    similarity = (2.0 * mean_x * mean_y + c1) * (2.0 * covariance + c2)
    similarity = similarity / ((mean_x * mean_x + mean_y * mean_y + c1) * (variances + c2))
    means: Tensor = similarity.flatten(1).mean(dim=1)
    return means


def _window_sums(x: Tensor) -> Tensor:
    """(n, H - 6, W - 6, C) sums over the windows inside."""
    sums: Tensor = x.unfold(1, SSIM_WINDOW, 1).sum(dim=-1).unfold(2, SSIM_WINDOW, 1).sum(dim=-1)
    return sums


def _relative_error(a: Tensor, b: Tensor) -> Tensor:
    x, y = (v.to(torch.float64).flatten(1) for v in (a, b))
    if not (x.isfinite().all() and y.isfinite().all()):
        raise ValueError("latents contain NaN or infinity")
    scale = y.norm(dim=1)
    if bool((scale == 0.0).any()):
        raise ValueError("a latent of the baseline is all zeros: no error is relative to it")
    error: Tensor = (x - y).norm(dim=1) / scale
    return error


def _chunked(metric: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> Tensor:
    size = max(1, _CHUNK_ELEMENTS // max(1, a[0].numel()))
    return torch.cat([metric(a[i : i + size], b[i : i + size]) for i in range(0, len(a), size)])


def _check_images(a: Tensor, b: Tensor) -> None:
    for images in (a, b):
        if images.dtype != torch.uint8 or images.ndim != 4 or 0 in images.shape:
            raise ValueError(f"images must be (n, H, W, C) uint8, not {tuple(images.shape)} {images.dtype}")
    if a.shape != b.shape:
        raise ValueError(f"images {tuple(a.shape)} and {tuple(b.shape)} are no pairs")


def _check_sides(images: Tensor, least: int, metric: str) -> None:
    height, width = images.shape[1:3]
    if min(height, width) < least:
        raise ValueError(f"{metric} needs images of at least {least}x{least} pixels, these are {height}x{width}")


def _backbone_weights(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise InputError(f"the backbone of LPIPS is not at {path}")
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise InputError(f"{path} is no state dict that can be read safely: {error}") from None
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise InputError(f"{path} is no state dict: it holds {type(weights).__name__}")
    return weights
