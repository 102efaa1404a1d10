"""PSNR, SSIM, LPIPS and relative error of pairs against scikit-image, the lpips package and closed forms."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from ditbench.harness.errors import InputError
from ditbench.harness.quality import perceptual
from ditbench.harness.quality.perceptual import LPIPS_LEAST, Lpips, paired_summary, psnr, relative_error, ssim
from ditbench.harness.stats.intervals import mean_interval
from ditbench.methods.torchvision_shim import ensure_torchvision_importable

FILES = {"alex": "alexnet-owt-7be5be79.pth", "squeeze": "squeezenet1_1-b8a52dc0.pth"}


def images(n: int, height: int, width: int, channels: int = 3) -> tuple[Tensor, Tensor]:
    """Smooth pictures and noisy copies, with saturated pixels."""
    rng = np.random.default_rng(0)
    down, across = np.linspace(0, 6, height)[:, None], np.linspace(0, 5, width)
    waves = rng.uniform(0.5, 2, (n, 1, 1, channels)) * np.sin(down + across)[None, :, :, None]
    first = 128 + 90 * waves
    second = first + 25.0 * rng.standard_normal(first.shape)
    return tuple(torch.from_numpy(np.clip(np.rint(x), 0, 255).astype(np.uint8)) for x in (first, second))  # type: ignore[return-value]


# PSNR and SSIM ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [16, -16])
def test_psnr_of_a_constant_error_of_16_is_24_decibels(error: int) -> None:
    # in uint8 arithmetic 16 * 16 is 0 and the PSNR infinite
    a = torch.full((2, 8, 8, 3), 100, dtype=torch.uint8)
    b = torch.full((2, 8, 8, 3), 100 + error, dtype=torch.uint8)
    np.testing.assert_allclose(psnr(a, b).numpy(), 20 * math.log10(255 / 16), rtol=1e-12)
    assert psnr(a, b)[0].item() == pytest.approx(24.05, abs=0.005)


@pytest.mark.parametrize("shape", [(9, 14, 3), (8, 8, 1), (40, 33, 3)])
def test_psnr_equals_scikit_image(shape: tuple[int, int, int]) -> None:
    a, b = images(5, *shape)
    expected = [peak_signal_noise_ratio(x, y, data_range=255) for x, y in zip(b.numpy(), a.numpy(), strict=True)]
    np.testing.assert_allclose(psnr(a, b).numpy(), expected, rtol=1e-12)


def test_psnr_of_equal_images_is_infinite() -> None:
    a, _ = images(2, 8, 8)
    assert torch.equal(psnr(a, a), torch.full((2,), math.inf, dtype=torch.float64))


@pytest.mark.parametrize("shape", [(7, 7, 3), (8, 8, 1), (9, 31, 3), (40, 33, 4)])
def test_ssim_equals_scikit_image(shape: tuple[int, int, int]) -> None:
    a, b = images(5, *shape)
    expected = [
        structural_similarity(x, y, data_range=255, channel_axis=-1) for x, y in zip(a.numpy(), b.numpy(), strict=True)
    ]
    np.testing.assert_allclose(ssim(a, b).numpy(), expected, rtol=0, atol=1e-10)
    assert ssim(a, a).numpy() == pytest.approx(1.0, abs=1e-12)


def test_ssim_of_flat_images_equals_scikit_image() -> None:
    # no variance: the stabilising constants alone decide, and rounding must not
    a, b = (torch.full((1, 12, 12, 3), level, dtype=torch.uint8) for level in (250, 3))
    expected = structural_similarity(a[0].numpy(), b[0].numpy(), data_range=255, channel_axis=-1)
    assert ssim(a, b).item() == pytest.approx(expected, abs=1e-10)


def test_pairs_do_not_depend_on_how_they_are_batched(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = images(7, 12, 13)
    whole = [psnr(a, b), ssim(a, b), relative_error(a.float(), b.float())]
    monkeypatch.setattr(perceptual, "_CHUNK_ELEMENTS", 1000)
    for one, other in zip(whole, [psnr(a, b), ssim(a, b), relative_error(a.float(), b.float())], strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (torch.zeros((2, 6, 9, 3), dtype=torch.uint8), None, "SSIM needs images of at least 7x7 pixels, these are 6x9"),
        (torch.zeros((2, 9, 9, 3)), None, "uint8"),
        (torch.zeros((9, 9, 3), dtype=torch.uint8), None, r"\(n, H, W, C\)"),
        (torch.zeros((2, 9, 9, 3), dtype=torch.uint8), torch.zeros((1, 9, 9, 3), dtype=torch.uint8), "no pairs"),
    ],
)
def test_ssim_refuses_what_it_cannot_compare(a: Tensor, b: Tensor | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ssim(a, a if b is None else b)


# Relative error ---------------------------------------------------------------------------------------


def test_relative_error_is_the_share_of_the_baselines_norm() -> None:
    b = torch.randn((3, 4, 8, 8), generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(relative_error(1.25 * b, b).numpy(), 0.25, rtol=1e-6)
    other = torch.randn((3, 4, 8, 8), generator=torch.Generator().manual_seed(1))
    expected = [np.linalg.norm(x - y) / np.linalg.norm(y) for x, y in zip(other.double(), b.double(), strict=True)]
    np.testing.assert_allclose(relative_error(other, b).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (torch.ones((2, 4)), torch.tensor([[1.0] * 4, [0.0] * 4]), "all zeros"),
        (torch.full((2, 4), math.nan), torch.ones((2, 4)), "NaN"),
        (torch.ones((2, 4)), torch.ones((2, 5)), "no pairs"),
    ],
)
def test_relative_error_refuses_what_has_none(a: Tensor, b: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        relative_error(a, b)


# LPIPS ------------------------------------------------------------------------------------------------


def backbone(net: str, path: Path) -> None:
    """A state dict of the whole torchvision network with random features, in a small file."""
    ensure_torchvision_importable()
    import torchvision

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        with torch.device("meta"):
            model = {"alex": torchvision.models.alexnet, "squeeze": torchvision.models.squeezenet1_1}[net]()
        state = {
            # a classifier is not looked at: one number stands for all of it
            name: torch.randn(like.shape) / math.sqrt(max(1, like[0].numel()))
            if name.startswith("features.")
            else torch.zeros(1).expand(like.shape)
            for name, like in model.state_dict().items()
        }
    torch.save(state, path)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("torch") / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    for net, name in FILES.items():
        backbone(net, folder / name)
    return folder


@pytest.fixture
def without_downloads(checkpoints: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def refuse(*args: object, **rest: object) -> None:
        raise AssertionError("a download was tried")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.setenv("TORCH_HOME", str(checkpoints.parents[1]))
    yield


@pytest.mark.parametrize("net", sorted(FILES))
@pytest.mark.usefixtures("without_downloads")
def test_lpips_equals_the_package_with_the_same_backbone(net: str, checkpoints: Path) -> None:
    ensure_torchvision_importable()
    import lpips

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        package = lpips.LPIPS(net=net, verbose=False)
    a, b = images(4, 64, 51)
    with torch.no_grad():
        one, two = (torch.cat([lpips.im2tensor(image) for image in x.numpy()]) for x in (a, b))
        expected = package(one, two).reshape(-1).double()
    own = Lpips(checkpoints / FILES[net], net)
    assert expected.min() > 1e-3 and expected.std() > 1e-4
    torch.testing.assert_close(own(a, b), expected, rtol=0, atol=1e-6)
    assert torch.equal(own(a, a), torch.zeros(4, dtype=torch.float64))


@pytest.mark.parametrize("net", sorted(FILES))
def test_lpips_takes_its_least_size_and_refuses_one_pixel_less(net: str, checkpoints: Path) -> None:
    metric, least = Lpips(checkpoints / FILES[net], net), LPIPS_LEAST[net]
    a, b = images(1, least, least + 4)
    assert metric(a, b).item() > 0
    with pytest.raises(ValueError, match=rf"at least {least}x{least} pixels, these are {least - 1}x{least + 4}"):
        metric(a[:, 1:], b[:, 1:])
    # and the network itself could not
    with pytest.raises(RuntimeError, match="too small"):
        metric._distances(a[:, 1:], b[:, 1:])


def test_lpips_leaves_the_random_state_alone(checkpoints: Path) -> None:
    before = torch.get_rng_state()
    Lpips(checkpoints / FILES["squeeze"], "squeeze")
    assert torch.equal(torch.get_rng_state(), before)


def test_lpips_refuses_files_and_nets_that_do_not_fit_in_one_line(checkpoints: Path, tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("no weights")
    torch.save([1, 2], tmp_path / "list.pth")
    for path, net, message in (
        (tmp_path / "absent.pth", "alex", "not at"),
        (tmp_path / "text.pth", "alex", "read safely"),
        (tmp_path / "list.pth", "alex", "it holds list"),
        (checkpoints / FILES["squeeze"], "alex", "'alex' needs"),
        (checkpoints / FILES["alex"], "alexnet", "did you mean 'alex'"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            Lpips(path, net)
        assert "\n" not in str(caught.value)


def test_lpips_refuses_grey_images(checkpoints: Path) -> None:
    with pytest.raises(ValueError, match="three channels, not 1"):
        Lpips(checkpoints / FILES["squeeze"], "squeeze")(*images(1, 32, 32, 1))


# Summaries --------------------------------------------------------------------------------------------


def test_summary_is_the_t_interval_and_the_means_without_each_block() -> None:
    values = np.random.default_rng(0).gamma(2.0, size=47)
    estimate, rest = paired_summary(values)
    assert estimate == mean_interval(values)
    expected = [np.delete(values, block).mean() for block in np.array_split(np.arange(47), 10)]
    np.testing.assert_allclose(rest, expected, rtol=1e-12)


def test_equal_pairs_leave_the_mean_but_not_their_place_in_the_blocks() -> None:
    values = np.random.default_rng(0).gamma(2.0, size=40)
    values[[0, 1, 2, 3, 17]] = math.inf
    estimate, rest = paired_summary(values)
    finite = np.delete(values, [0, 1, 2, 3, 17])
    assert estimate == mean_interval(finite)
    # the first block holds equal pairs only: without it the mean is the same
    assert rest[0] == pytest.approx(finite.mean(), rel=1e-12)
    assert rest[9] == pytest.approx(values[:36][np.isfinite(values[:36])].mean(), rel=1e-12)


def test_a_set_of_equal_pairs_has_an_infinite_psnr_and_says_why_there_is_no_interval() -> None:
    estimate, rest = paired_summary([math.inf] * 30)
    assert estimate.value == math.inf and estimate.low is None and rest == ()
    assert estimate.method == "no interval: all 30 pairs are equal"


def test_few_pairs_have_a_mean_but_no_blocks() -> None:
    estimate, rest = paired_summary([1.0, 2.0, 4.0])
    assert estimate.value == pytest.approx(7 / 3) and rest == ()


@pytest.mark.parametrize("bad", [[], [1.0, math.nan], [1.0, -math.inf], [[1.0]]])
def test_summary_refuses_what_is_no_series(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="non-empty series"):
        paired_summary(bad)
