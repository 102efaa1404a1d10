"""The decoder of latents: tiles are seamless, and its numbers are never rounded behind its back."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from decoder_files import BIAS, copied, fault, latents, rewritten, with_value

from ditbench.harness.assets.locations import sha256_of
from ditbench.harness.sample.picture_decoder import PictureDecoder, bind_decoder, windows
from ditbench.harness.store.records import DecoderSpec
from ditbench.harness.suite.load import load_suite
from ditbench.harness.suite.plan import make_plan
from ditbench.methods.errors import CheckpointError
from ditbench.methods.latent.autoencoder import LatentDecoder, make_autoencoder_files


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_autoencoder_files(tmp_path_factory.mktemp("autoencoder"), seed=1)


# Tiles ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "side"), [(8, 8), (9, 8), (16, 8), (32, 24), (37, 11), (64, 32), (8, 64)])
def test_tiles_cover_the_axis_overlap_by_a_quarter_and_their_weights_add_up_to_one(length: int, side: int) -> None:
    found, size = windows(length, side, 8), min(side, length)
    starts = [start for start, _ in found]
    assert starts[0] == 0 and starts[-1] == length - size
    assert all(second <= first + size - size // 4 for first, second in pairwise(starts))
    total, alone = torch.zeros(length * 8), torch.zeros(length * 8)
    for start, weight in found:
        assert len(weight) == size * 8 and (weight > 0).all()
        total[start * 8 : (start + size) * 8] += weight
        alone[start * 8 : (start + size) * 8] += 1
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-6)
    for start, weight in found:
        assert (weight[alone[start * 8 : (start + size) * 8] == 1] == 1).all()


def test_a_tile_that_covers_the_latent_changes_nothing(source: Path) -> None:
    z = latents(2, 8, 12)
    whole = bind_decoder(DecoderSpec(), source, "cpu").decode(z)
    for tile in (12, 64):
        assert torch.equal(bind_decoder(DecoderSpec(tile=tile), source, "cpu").decode(z), whole)
    assert not torch.equal(bind_decoder(DecoderSpec(tile=8), source, "cpu").decode(z), whole)


def local_decoder() -> LatentDecoder:
    """A decoder that only enlarges: what tiles give of it must be what the whole gives, seams and all."""

    class Enlarge(torch.nn.Module):
        scale_factor, in_channels = 8, 4

        def forward(self, z: torch.Tensor) -> torch.Tensor:
            return z[:, :3].repeat_interleave(8, 2).repeat_interleave(8, 3)

    return Enlarge()  # type: ignore[return-value]


@pytest.mark.parametrize("shape", [(16, 16), (9, 30), (24, 8)])
def test_tiles_of_a_decoder_that_looks_at_no_neighbours_are_seamless(shape: tuple[int, int]) -> None:
    z = latents(3, *shape)
    whole = PictureDecoder(local_decoder(), DecoderSpec(), "cpu").decode(z)
    tiled = PictureDecoder(local_decoder(), DecoderSpec(tile=8, batch=2), "cpu").decode(z)
    torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-5)


def test_tiles_stay_near_the_whole_and_the_nearer_the_larger_they_are(source: Path) -> None:
    z = latents(1, 32)
    whole = bind_decoder(DecoderSpec(), source, "cpu").decode(z)
    errors = [(bind_decoder(DecoderSpec(tile=tile), source, "cpu").decode(z) - whole).std() for tile in (24, 16, 8)]
    # norms and attention see one tile only: near, not equal
    assert 0 < errors[0] < 0.1 * whole.std() and errors[0] < errors[1] < errors[2] < 0.6 * whole.std()


def test_between_two_tiles_the_picture_goes_over_in_small_steps() -> None:
    class Numbered(torch.nn.Module):
        """Every call gives pictures of one value: 0, 1, 2, …"""

        scale_factor, in_channels, calls = 8, 4, -1

        def forward(self, z: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return torch.full((len(z), 3, 8 * z.shape[2], 8 * z.shape[3]), float(self.calls))

    decoder = PictureDecoder(Numbered(), DecoderSpec(tile=16), "cpu")  # type: ignore[arg-type]
    line = decoder.decode(latents(1, 16, 28))[0, 0, 0]  # tiles from 0 and from 12: pixels 96 to 128 are in both
    assert (line[:96] == 0).all() and (line[128:] == 1).all()
    steps = line[96:128].diff()
    torch.testing.assert_close(steps, torch.full((31,), 1 / 32), rtol=1e-3, atol=0)
    assert line[96] < 1 / 32 and line[127] > 31 / 32


# Numbers ----------------------------------------------------------------------------------------------


def test_latents_are_divided_by_the_scale_and_decoded_in_calls_of_the_batch() -> None:
    seen: list[torch.Tensor] = []

    class Spy(torch.nn.Module):
        scale_factor, in_channels = 8, 4

        def forward(self, z: torch.Tensor) -> torch.Tensor:
            seen.append(z)
            return z[:, :3]

    z = latents(5)
    decoder = PictureDecoder(Spy(), DecoderSpec(scale=0.5, batch=2, dtype="bfloat16"), "cpu")  # type: ignore[arg-type]
    found = decoder.decode(z.numpy())
    assert [len(each) for each in seen] == [2, 2, 1] and {each.dtype for each in seen} == {torch.bfloat16}
    assert torch.equal(torch.cat(seen), (z / 0.5).bfloat16())
    assert found.dtype == torch.float32 and torch.equal(found, (z / 0.5).bfloat16()[:, :3].float())


def test_the_module_is_cast_to_the_decoders_number_type(source: Path) -> None:
    decoder = bind_decoder(DecoderSpec(dtype="bfloat16"), source, "cpu")
    assert {each.dtype for each in decoder.model.parameters()} == {torch.bfloat16}
    exact = bind_decoder(DecoderSpec(), source, "cpu").decode(latents())
    error = (decoder.decode(latents()) - exact).std()
    assert 0 < error < 0.05 * exact.std()


@pytest.mark.parametrize(("dtype", "expected"), [("float32", [False, False]), ("bfloat16", [True, True])])
def test_float32_is_never_rounded_by_the_device_and_its_settings_are_put_back(dtype: str, expected: list[bool]) -> None:
    places = (torch.backends.cudnn, torch.backends.cuda.matmul)
    seen: list[list[bool]] = []

    class Spy(torch.nn.Module):
        scale_factor, in_channels = 8, 4

        def forward(self, z: torch.Tensor) -> torch.Tensor:
            seen.append([place.allow_tf32 for place in places])
            return z[:, :3]

    before = [place.allow_tf32 for place in places]
    try:
        for place in places:
            place.allow_tf32 = True
        PictureDecoder(Spy(), DecoderSpec(dtype=dtype), "cpu").decode(latents())  # type: ignore[arg-type]
        assert seen == [expected] and [place.allow_tf32 for place in places] == [True, True]
    finally:
        for place, allowed in zip(places, before, strict=True):
            place.allow_tf32 = allowed


def test_weights_that_changed_since_the_plan_are_refused(source: Path, tmp_path: Path) -> None:
    folder = copied(source, tmp_path / "a")
    spec = DecoderSpec(weights=str(folder), weights_sha256=sha256_of(folder))
    bind_decoder(spec, folder, "cpu")
    rewritten(folder, with_value(BIAS, torch.ones(3)))
    with pytest.raises(CheckpointError, match="changed since the plan"):
        bind_decoder(spec, folder, "cpu")


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("decoder: {}, measure: [decode]", "decoder: dit-digits makes pictures of 1 channel, not latents"),
        (
            "config: {in_channels: 4}, decoder: {}, measure: [decode, quality]",
            "quality of pictures by a random decoder",
        ),
        ("config: {in_channels: 4}, decoder: {}, measure: [paired]", "paired of pictures by a random decoder"),
    ],
)
def test_a_suite_that_decodes_for_nothing_is_refused(tmp_path: Path, cell: str, message: str) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(
        f"suite: s\ncells:\n  - {{method: dit-digits, weights: 'zoo:dit-digits', dataset: digits, {cell}}}\n"
    )
    found = fault(lambda: make_plan(load_suite(str(file))))
    assert message in found and found.startswith(f"{file}:3:")
