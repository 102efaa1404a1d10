"""Extractors against the libraries whose figures they must give, and against the ports that are known to be wrong."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from extractor_weights import (
    State,
    dinov2_state,
    inception_state,
    pictures,
    write_dinov2,
    write_inception,
)
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from ditbench.harness.errors import InputError
from ditbench.harness.quality.extractors.dinov2 import (
    Dinov2Extractor,
    Shape,
    VisionTransformer,
    dinov2,
    resampled_positions,
)
from ditbench.harness.quality.extractors.extractor import Extractor
from ditbench.harness.quality.extractors.inception import InceptionExtractor, adm_inception, clean_inception
from ditbench.harness.quality.extractors.resize import bicubic, bicubic_8bit, rgb
from ditbench.harness.quality.frechet import frechet_from_features
from ditbench.harness.quality.inception_score import inception_score
from ditbench.harness.quality.kernel import kernel_distance
from ditbench.harness.quality.neighbours import neighbour_metrics
from ditbench.methods.torchvision_shim import ensure_torchvision_importable

SHA256 = "0" * 64
CPU = torch.device("cpu")
SIZES = [(32, 32), (256, 256), (299, 299), (200, 300)]


@pytest.fixture(scope="session")
def state() -> State:
    return inception_state()


@pytest.fixture(scope="session")
def weights(state: State, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_inception(tmp_path_factory.mktemp("inception") / "inception.pth", state)


@pytest.fixture(scope="session")
def oracle(weights: Path) -> nn.Module:
    ensure_torchvision_importable()
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    layers = ["2048", "logits_unbiased"]
    return FeatureExtractorInceptionV3("inception-v3-compat", layers, feature_extractor_weights_path=weights)


@pytest.fixture(scope="session")
def adm(weights: Path) -> InceptionExtractor:
    return adm_inception(weights, SHA256, "cpu")


@pytest.fixture(scope="session")
def clean(weights: Path) -> InceptionExtractor:
    return clean_inception(weights, SHA256, "cpu")


@pytest.fixture
def tiny(tmp_path: Path) -> Dinov2Extractor:
    return dinov2(write_dinov2(tmp_path / "dinov2.pth"), SHA256, "cpu")


def nchw(images: Tensor) -> Tensor:
    return rgb(images, CPU)


# Inception as ADM uses it, against torch-fidelity -----------------------------------------------------


def test_features_and_logits_are_torch_fidelitys_at_any_size(adm: InceptionExtractor, oracle: nn.Module) -> None:
    for seed, (height, width) in enumerate(SIZES):
        images = pictures(1, height, width, seed)
        own = adm(images)
        features, logits = oracle(nchw(images))
        torch.testing.assert_close(own["features"], features, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(own["logits"], logits, rtol=1e-5, atol=1e-4)
        assert {name: own[name].shape[1] for name in own} == dict(adm.dims)
        assert all(array.dtype == torch.float32 for array in own.values())


def in_their_span(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both in the few directions in which they differ at all: no Fréchet distance changes, and it takes no time."""
    both = np.concatenate([x, y]).astype(np.float64)
    axes = np.linalg.svd(both - both.mean(axis=0), full_matrices=False)[2].T
    return x @ axes, y @ axes


def test_figures_of_the_whole_chain_are_torch_fidelitys(adm: InceptionExtractor, oracle: nn.Module) -> None:
    from torch_fidelity.metric_fid import fid_statistics_to_metric
    from torch_fidelity.metric_isc import isc_features_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric
    from torch_fidelity.metric_prc import prc_features_to_metric

    images = [pictures(7, 40, 40, 1), pictures(7, 40, 40, 2, contrast=0.7)]
    (features, logits), (real, _) = (oracle(nchw(each)) for each in images)
    spans = in_their_span(features.numpy(), real.numpy())
    subsets = {"kid_subsets": 10, "kid_subset_size": 6}
    expected = {
        **fid_statistics_to_metric(*({"mu": x.mean(0), "sigma": np.cov(x.T)} for x in spans), verbose=False),
        **kid_features_to_metric(features, real, **subsets, rng_seed=2020, verbose=False),
        **isc_features_to_metric(logits, splits=2, shuffle=True, rng_seed=2020),
        **prc_features_to_metric(features, real, prc_neighborhood=3, verbose=False),
    }

    one, two = ([adm(part) for part in each.split(4)] for each in images)
    x, y = (torch.cat([part["features"] for part in parts]).numpy() for parts in (one, two))
    kid = kernel_distance(x, y, subsets=10, subset_size=6)
    score = inception_score(torch.cat([part["logits"] for part in one]).numpy(), splits=2, shuffle_seed=2020)
    prc = neighbour_metrics(x, y, k=3)
    own = {
        "frechet_inception_distance": frechet_from_features(*in_their_span(x, y)),
        "kernel_inception_distance_mean": kid.estimate.value,
        "kernel_inception_distance_std": kid.subset_std,
        "inception_score_mean": score.estimate.value,
        "inception_score_std": score.std,
        "precision": prc.precision.value,
        "recall": prc.recall.value,
    }
    assert score.estimate.value > 1.05 and prc.precision.value > 0
    assert own == pytest.approx({name: float(expected[name]) for name in own}, rel=1e-5)


# The sFID layout --------------------------------------------------------------------------------------


def answer_with(network: nn.Module, block: str, activations: Tensor) -> Callable[[], None]:
    branch = network.get_submodule(f"{block}.branch1x1")
    return branch.register_forward_hook(lambda *_: activations).remove


def test_spatial_features_are_seven_channels_of_mixed_6d_with_the_channel_fastest(adm: InceptionExtractor) -> None:
    # Each value tells its place: 1000 row + 10 column + channel / 1000; those of Mixed_6e are negative.
    row, column, channel = torch.arange(17.0), torch.arange(17.0), torch.arange(192.0)
    known = (1000 * row[:, None] + 10 * column) + channel[:, None, None] / 1000
    undo = [answer_with(adm.network, "Mixed_6d", known[None]), answer_with(adm.network, "Mixed_6e", -known[None])]
    try:
        own = adm(pictures(1, 32, 32, 0))["spatial"][0]
    finally:
        for each in undo:
            each()

    expected = [1000 * h + 10 * w + c / 1000 for h in range(17) for w in range(17) for c in range(7)]
    np.testing.assert_allclose(own.numpy(), expected, rtol=1e-6)

    channels_first = known[:7].flatten()
    later_block = -known[:7].permute(1, 2, 0).flatten()
    for wrong in (channels_first, later_block):
        assert wrong.shape == own.shape
        assert not torch.allclose(wrong, own)


def test_spatial_features_are_the_first_channels_of_mixed_6ds_output(adm: InceptionExtractor) -> None:
    # The block's output begins with this branch, after its batch norm and ReLU.
    seen: list[Tensor] = []
    handle = adm.network.get_submodule("Mixed_6d").register_forward_hook(lambda *given: seen.append(given[2]))
    own = adm(pictures(1, 32, 32, 0))["spatial"]
    handle.remove()
    torch.testing.assert_close(own.view(1, 17, 17, 7), seen[0].movedim(1, -1)[..., :7], rtol=0, atol=0)
    assert own.min() == 0 < own.max()


# Inception behind clean-fid's resize ------------------------------------------------------------------


class TorchScriptInception(nn.Module):
    """The interface that clean-fid needs of its file."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_clean_features_and_distance_are_clean_fids(clean: InceptionExtractor, tmp_path: Path) -> None:
    ensure_torchvision_importable()
    from cleanfid.fid import fid_from_feats, get_folder_features
    from cleanfid.inception_torchscript import InceptionV3W

    network = nn.Sequential(*(child for name, child in clean.network.named_children() if name != "fc"))
    with torch.no_grad():
        traced = torch.jit.trace(TorchScriptInception(network), torch.zeros(1, 3, 299, 299), check_trace=False)
    torch.jit.save(traced, tmp_path / "inception-2015-12-05.pt")
    model = InceptionV3W(str(tmp_path), download=False)

    own, oracle = [], []
    for seed, contrast in ((1, 1.0), (2, 0.6)):
        images = pictures(4, 40, 52, seed, contrast)
        folder = tmp_path / str(seed)
        folder.mkdir()
        for index, image in enumerate(images.numpy()):
            Image.fromarray(image).save(folder / f"{index}.png")
        own.append(clean(images)["features"].double().numpy())
        found = get_folder_features(str(folder), model, num_workers=0, device=CPU, mode="clean", verbose=False)
        oracle.append(found.astype(np.float64))
        np.testing.assert_allclose(own[-1], oracle[-1], rtol=1e-5, atol=1e-5)

    # clean-fid's matrix root loses its digits where covariances are singular, as they are with fewer images than
    # features. A random plane of three dimensions has regular ones, and every feature counts in it.
    plane = np.random.default_rng(0).standard_normal((2048, 3)) / math.sqrt(2048)
    expected = fid_from_feats(oracle[0] @ plane, oracle[1] @ plane)
    assert frechet_from_features(own[0] @ plane, own[1] @ plane) == pytest.approx(expected, rel=1e-5)


# Resizes against Pillow -------------------------------------------------------------------------------


def pillow_float(image: np.ndarray, size: int) -> np.ndarray:
    channels = [Image.fromarray(channel.astype(np.float32)) for channel in image.transpose(2, 0, 1)]
    return np.stack([np.asarray(c.resize((size, size), Image.Resampling.BICUBIC)).clip(0, 255) for c in channels])


def pillow_8bit(image: np.ndarray, size: int) -> np.ndarray:
    # In two steps: Pillow 13 begins with the columns of tall images, the versions behind published figures did not.
    rows = Image.fromarray(image).resize((size, image.shape[0]), Image.Resampling.BICUBIC)
    return np.asarray(rows.resize((size, size), Image.Resampling.BICUBIC)).transpose(2, 0, 1)


def hard_edges(height: int, width: int) -> Tensor:
    """Noise of black and white, where a cubic overshoots most, beside noise of all levels."""
    noise = torch.randint(0, 256, (2, height, width, 3), generator=torch.Generator().manual_seed(0))
    noise[0] = 255 * (noise[0] > 127)
    return noise.to(torch.uint8)


@pytest.mark.parametrize("target", [299, 224])
@pytest.mark.parametrize("size", [(1, 2), (32, 32), (64, 500), (256, 256), (299, 224), (400, 210)])
def test_bicubic_resizes_are_pillows(size: tuple[int, int], target: int) -> None:
    images = hard_edges(*size)
    as_float, as_8bit = bicubic(nchw(images), target), bicubic_8bit(nchw(images), target)
    assert as_float.dtype == torch.float32 and as_8bit.dtype == torch.uint8
    np.testing.assert_allclose(as_float.numpy(), [pillow_float(i, target) for i in images.numpy()], rtol=0, atol=4e-5)
    np.testing.assert_array_equal(as_8bit.numpy(), [pillow_8bit(i, target) for i in images.numpy()])


# DINOv2 -----------------------------------------------------------------------------------------------


def test_dinov2_reads_images_as_dgm_eval_gives_them(tiny: Dinov2Extractor) -> None:
    ensure_torchvision_importable()
    from torchvision import transforms

    protocol = transforms.Compose(
        [
            transforms.Resize((224, 224), transforms.InterpolationMode.BICUBIC),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    seen: list[Tensor] = []
    tiny.network.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    for size in ((32, 32), (256, 256), (180, 320)):
        images = pictures(2, *size, seed=1)
        tiny(images)
        expected = torch.stack([protocol(Image.fromarray(image)) for image in images.numpy()])
        torch.testing.assert_close(seen.pop(), expected, rtol=0, atol=1e-6)


def keys_cubic(x: float) -> float:
    """torch's bicubic kernel, a = -3/4."""
    a, x = -0.75, abs(x)
    if x < 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def sampled(square: np.ndarray, grid: int, step: float) -> np.ndarray:
    """(side, side, width) -> (grid, grid, width): bicubic at ((i + 1/2) step - 1/2), borders repeated."""
    side = len(square)
    weights = np.zeros((grid, side))
    for i in range(grid):
        place = (i + 0.5) * step - 0.5
        for j in range(math.floor(place) - 1, math.floor(place) + 3):
            weights[i, min(max(j, 0), side - 1)] += keys_cubic(place - j)
    return np.einsum("ai,bj,ijw->abw", weights, weights, square)


def test_position_embeddings_are_sampled_as_the_reference_does() -> None:
    table = torch.randn(1, 1 + 37 * 37, 8, generator=torch.Generator().manual_seed(0))
    own = resampled_positions(table, 16)
    square = table[0, 1:].view(37, 37, 8).double().numpy()
    assert torch.equal(own[:, :1], table[:, :1])
    np.testing.assert_allclose(own[0, 1:].view(16, 16, 8).numpy(), sampled(square, 16, 37 / 16.1), atol=1e-5)
    plain = sampled(square, 16, 37 / 16)
    assert np.abs(own[0, 1:].view(16, 16, 8).numpy() - plain).max() > 0.1, "without the offset it is expected to fail"
    assert resampled_positions(table, 37) is table


def by_hand(state: State, images: Tensor) -> Tensor:
    """The class token, by torch's own attention module and formulas."""
    depth = sum(name.endswith("norm1.weight") for name in state)
    width = state["cls_token"].shape[-1]
    side = images.shape[-1] // 14
    patches = images.unfold(2, 14, 14).unfold(3, 14, 14).permute(0, 2, 3, 1, 4, 5).flatten(3)
    tokens = patches @ state["patch_embed.proj.weight"].flatten(1).T + state["patch_embed.proj.bias"]
    square = state["pos_embed"][0, 1:].unflatten(0, (37, 37)).numpy()
    tokens = tokens + torch.from_numpy(sampled(square, side, 37 / (side + 0.1)))
    first = (state["cls_token"] + state["pos_embed"][:, :1]).expand(len(images), -1, -1)
    x = torch.cat([first, tokens.flatten(1, 2)], dim=1)

    def normed(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        spread = (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return centred / spread * state[f"{name}.weight"] + state[f"{name}.bias"]

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    for block in (f"blocks.{i}" for i in range(depth)):
        attention = nn.MultiheadAttention(width, width // 64, batch_first=True, dtype=torch.float64).eval()
        attention.load_state_dict(
            {
                "in_proj_weight": state[f"{block}.attn.qkv.weight"],
                "in_proj_bias": state[f"{block}.attn.qkv.bias"],
                "out_proj.weight": state[f"{block}.attn.proj.weight"],
                "out_proj.bias": state[f"{block}.attn.proj.bias"],
            }
        )
        y = normed(x, f"{block}.norm1")
        x = x + attention(y, y, y)[0] * state[f"{block}.ls1.gamma"]
        y = normed(x, f"{block}.norm2")
        if f"{block}.mlp.w12.weight" in state:
            gate, value = linear(y, f"{block}.mlp.w12").chunk(2, dim=-1)
            y = linear(gate * gate.sigmoid() * value, f"{block}.mlp.w3")
        else:
            y = linear(y, f"{block}.mlp.fc1")
            y = linear(y * (1 + torch.erf(y / math.sqrt(2))) / 2, f"{block}.mlp.fc2")
        x = x + y * state[f"{block}.ls2.gamma"]
    return normed(x, "norm")[:, 0]


@pytest.mark.parametrize("gated", [False, True])
def test_the_transformer_is_the_one_written_by_hand(gated: bool) -> None:
    state = {name: value.double() for name, value in dinov2_state(gated=gated).items()}
    network = VisionTransformer(Shape.of(state)).double()
    network.load_state_dict(state)
    images = torch.randn(2, 3, 56, 56, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(network(images), by_hand(state, images), rtol=1e-9, atol=1e-9)


def test_a_size_is_named_by_its_width_and_depth(tiny: Dinov2Extractor) -> None:
    assert tiny.name == "dinov2-width 128, depth 2: class token after the last norm"
    assert dict(tiny.dims) == {"features": 128}


# Both -------------------------------------------------------------------------------------------------


def test_gray_images_are_repeated_to_three_channels(tiny: Dinov2Extractor) -> None:
    gray = pictures(2, 32, 32, 1)[..., :1]
    assert torch.equal(rgb(gray, CPU), gray.permute(0, 3, 1, 2).repeat(1, 3, 1, 1))
    assert torch.equal(tiny(gray)["features"], tiny(gray.repeat(1, 1, 1, 3))["features"])


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(1, 8, 8, 3),
        torch.zeros(1, 8, 8, 3, dtype=torch.int8),
        torch.zeros(1, 3, 8, 8, dtype=torch.uint8),
        torch.zeros(8, 8, 3, dtype=torch.uint8),
        torch.zeros(1, 8, 8, 4, dtype=torch.uint8),
        torch.zeros(1, 0, 8, 3, dtype=torch.uint8),
    ],
)
def test_other_images_are_refused(images: Tensor, adm: InceptionExtractor, tiny: Dinov2Extractor) -> None:
    for extractor in (adm, tiny):
        with pytest.raises(ValueError, match=r"\(n, H, W, C\) uint8"):
            extractor(images)


def test_no_tf32_inside_and_the_process_as_it_was_afterwards(tiny: Dinov2Extractor) -> None:
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = torch.get_float32_matmul_precision(), convolutions.allow_tf32
    seen = []
    tiny.network.register_forward_hook(lambda *_: seen.append((products.allow_tf32, convolutions.allow_tf32)))
    try:
        torch.set_float32_matmul_precision("high")
        convolutions.allow_tf32 = True
        tiny(pictures(1, 32, 32, 0))
        assert seen == [(False, False)]
        assert (torch.get_float32_matmul_precision(), convolutions.allow_tf32) == ("high", True)
    finally:
        torch.set_float32_matmul_precision(before[0])
        convolutions.allow_tf32 = before[1]


# Files ------------------------------------------------------------------------------------------------


def test_a_file_without_batch_counts_loads_the_same_network(adm: InceptionExtractor, tmp_path: Path) -> None:
    # Nothing reads the counts but training. The state dict carries torch's own version mark, which asks for them.
    kept = adm.network.state_dict()
    for name in [name for name in kept if name.endswith("num_batches_tracked")]:
        del kept[name]
    other = adm_inception(write_inception(tmp_path / "inception.pth", kept), SHA256, "cpu").network.state_dict()
    assert all(torch.equal(value, other[name]) for name, value in kept.items())


def test_safetensors_and_both_torch_formats_load_the_same_network(tmp_path: Path) -> None:
    state = dinov2_state()
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "b.pth")
    torch.save(state, tmp_path / "c.pth", _use_new_zipfile_serialization=False)
    for path in tmp_path.iterdir():
        loaded = dinov2(path, SHA256, "cpu").network.state_dict()
        assert loaded.keys() == state.keys()
        assert all(torch.equal(value, loaded[name]) for name, value in state.items())


class Code:
    """What must not run when a file is read."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('code in a file was run')",)


def without(state: State, name: str) -> State:
    return {key: value for key, value in state.items() if key != name}


@pytest.mark.parametrize("load", [adm_inception, clean_inception, dinov2])
def test_a_file_that_is_no_state_dict_is_one_clear_line(load: Callable[..., Extractor], tmp_path: Path) -> None:
    whole, old = tmp_path / "whole.pth", tmp_path / "old.pth"
    torch.save({"a": torch.zeros(99)}, whole)
    torch.save({"a": torch.zeros(99)}, old, _use_new_zipfile_serialization=False)
    bad = {name: tmp_path / f"{name}.pth" for name in ("cut", "old-cut", "short", "page", "code", "old-code", "number")}
    bad["cut"].write_bytes(whole.read_bytes()[:-200])
    bad["old-cut"].write_bytes(old.read_bytes()[:-8])
    bad["short"].write_bytes(old.read_bytes()[: struct.calcsize("q")])
    bad["page"].write_text("<html>404: not found</html>")
    torch.save({"a": Code()}, bad["code"])
    torch.save({"a": Code()}, bad["old-code"], _use_new_zipfile_serialization=False)
    torch.save({"a": 1}, bad["number"], _use_new_zipfile_serialization=False)
    for path in (*bad.values(), tmp_path / "absent.pth", tmp_path):
        with pytest.raises(InputError) as caught:
            load(path, SHA256, "cpu")
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_another_inception_is_refused_by_the_first_name_that_does_not_fit(state: State, tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    no_head = {**without(state, "fc.weight"), "fc.bias": torch.zeros(1000)}
    for other, words in (
        (no_head, ': Missing key(s) in state_dict: "fc.weight". size mismatch for fc.bias'),
        (dinov2_state(), ': Missing key(s) in state_dict: "Conv2d_1a_3x3.conv.weight"'),
    ):
        with pytest.raises(InputError) as caught:
            adm_inception(write_inception(path, other), SHA256, "cpu")
        assert str(caught.value).startswith(f"{path} is not the Inception of 2015{words}")
        assert len(str(caught.value)) < len(str(path)) + 250


def test_another_transformer_is_refused_by_the_first_name_that_does_not_fit(tmp_path: Path) -> None:
    state, path = dinov2_state(), tmp_path / "other.pth"
    for other, words in (
        (without(state, "pos_embed"), "pos_embed is missing"),
        (without(state, "blocks.1.ls1.gamma"), "first blocks.1.ls1.gamma"),
        ({**state, "pos_embed": torch.zeros(1, 1369, 128)}, "not [1, 1 + a square, a multiple of 64]"),
        ({**state, "register_tokens": torch.zeros(1, 4, 128)}, "1 are unknown, first register_tokens"),
        ({**state, "patch_embed.proj.weight": torch.zeros(128, 3, 16, 16)}, "file [128, 3, 16, 16]"),
        ({"conv.weight": torch.zeros(3)}, "pos_embed is missing"),
    ):
        with pytest.raises(InputError, match=r"is not a DINOv2 backbone without registers") as caught:
            dinov2(write_dinov2(path, other), SHA256, "cpu")
        assert str(path) in str(caught.value) and words in str(caught.value)
