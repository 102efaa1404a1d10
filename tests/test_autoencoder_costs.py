"""The decoder of latents: its multiply–accumulates, its times, and its place in the report."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from decoder_files import BIAS, copied, latent_record, rewritten, with_value

from ditbench.harness.measure.decode_time import count_decoder, measure_decode
from ditbench.harness.measure.options import DecodeOptions
from ditbench.harness.sample.picture_decoder import bind_decoder
from ditbench.harness.sample.shards import NotFiniteError
from ditbench.harness.store.records import CellSpec, DecoderSpec, Quantity
from ditbench.methods.latent.autoencoder import load_decoder, make_autoencoder_files
from ditbench.report.row import Row
from ditbench.report.run_view import RunView
from ditbench.report.tables.decode import decode_table


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_autoencoder_files(tmp_path_factory.mktemp("autoencoder"), seed=1)


def macs_by_hand(channels: tuple[int, ...], layers: int, side: int) -> dict[str, int]:
    """The decoder's layers one by one; a norm counts 5 an element, enlarging 1 a pixel."""
    *_, last = channels
    pixels = side * side
    conv, norm, larger = 16 * pixels + 9 * 4 * last * pixels, 0, 0

    def residual(here: int, there: int) -> None:
        nonlocal conv, norm
        conv += pixels * (9 * here * there + 9 * there * there + (here * there if here != there else 0))
        norm += 5 * pixels * (here + there)

    residual(last, last)
    linear, attention = 4 * last * last * pixels, 2 * last * pixels**2
    norm += 5 * pixels * last
    residual(last, last)
    here = last
    for place, there in enumerate(reversed(channels)):
        for _ in range(layers + 1):
            residual(here, there)
            here = there
        if place + 1 < len(channels):
            pixels *= 4
            larger += pixels * here
            conv += 9 * here * here * pixels
    norm += 5 * pixels * here
    conv += 9 * here * 3 * pixels
    return {
        "conv": conv,
        "group_norm": norm,
        "linear": linear,
        "attention": attention,
        "upsample_nearest2d": larger,
    }


def test_macs_are_those_of_the_layers_one_by_one(tmp_path: Path) -> None:
    channels = (4, 8, 8, 16)
    folder = make_autoencoder_files(tmp_path, 0, channels)
    assert dict(count_decoder(bind_decoder(DecoderSpec(), folder, "cpu"), 8)) == macs_by_hand(channels, 1, 8)


def test_tiles_are_counted_whole(source: Path) -> None:
    one = macs_by_hand((8, 8, 8, 8), 1, 8)
    assert dict(count_decoder(bind_decoder(DecoderSpec(tile=64), source, "cpu"), 8)) == one
    tiled = count_decoder(bind_decoder(DecoderSpec(tile=8), source, "cpu"), 16)
    assert dict(tiled) == {name: 9 * value for name, value in one.items()}


def test_the_measurement_agrees_with_itself(source: Path) -> None:
    spec = CellSpec(cell="a", method="dit-s-2", sampler="ddim", steps=2, decoder=DecoderSpec(batch=2))
    options = DecodeOptions(batch=4, rounds=6, warmup_s=0.0, budget_s=0.3, precision=0.5)
    result = measure_decode(spec, source, options, 4)
    values, detail = result.values, result.detail
    assert values["decode_ms"].value == pytest.approx(detail["median_ms"] / 4)
    assert values["decode_ms"].value * values["decode_images_per_s"].value == pytest.approx(1000)
    low, high = values["decode_ms"].low, values["decode_ms"].high
    assert low is not None and high is not None and low <= values["decode_ms"].value <= high
    assert values["decode_images_per_s"].low == pytest.approx(1000 / high)
    assert values["decode_gmacs"].value == pytest.approx(sum(macs_by_hand((8, 8, 8, 8), 1, 4).values()) / 1e9)
    assert values["decoder_params"].value == sum(each.numel() for each in load_decoder(source).parameters())
    assert values["decode_peak_mib"].value == pytest.approx(detail["weights_mib"] + detail["activations_mib"])
    # pictures of the whole batch, 4 x 3 x 32 x 32 float32, are held at once
    assert detail["activations_mib"] > 4 * 3 * 32 * 32 * 4 / 2**20
    assert (detail["batch"], detail["call"], detail["picture"], detail["cost_only"]) == (4, 2, 32, False)


def test_a_decoder_that_gives_nan_is_not_timed(source: Path, tmp_path: Path) -> None:
    folder = rewritten(copied(source, tmp_path / "nan"), with_value(BIAS, torch.full((3,), torch.nan)))
    spec = CellSpec(cell="a", method="dit-s-2", sampler="ddim", steps=2, decoder=DecoderSpec())
    with pytest.raises(NotFiniteError, match="decoder's pictures"):
        measure_decode(spec, folder, DecodeOptions(batch=1, warmup_s=0.0, budget_s=0.1), 4)


def number(value: float, unit: str) -> Quantity:
    return Quantity(value=value, unit=unit, interval="")


def test_the_reports_table_sets_the_decoder_beside_the_loop(tmp_path: Path) -> None:
    values = {"decode_ms": number(25.0, "ms"), "decode_gmacs": number(312.5, "GMAC")}
    detail = {"batch": 8, "picture": 256, "tile": 32, "tiles": 1, "dtype": "float32", "cost_only": True}
    loop = latent_record("latency", {"image_ms": number(75.0, "ms")}, {"batch": 4})
    timed = {"latency": loop, "decode": latent_record("decode", values, detail)}
    alone = {"decode": latent_record("decode", values, {**detail, "tiles": 9, "cost_only": False}, "b")}
    rows = [Row(cell, loop.spec, tuple(each), each) for cell, each in {"a": timed, "b": alone}.items()]
    bare = Row("c", loop.spec, ("latency",), {"latency": loop})
    view = RunView(tmp_path, "s", "", "", "", None, (*rows, bare))
    table = decode_table(view)
    assert table is not None
    columns = {column.key: column for column in table.columns}
    assert [value.raw for value in columns["cell"].values] == ["a", "b"], "a cell without a decoder has no row"
    assert [value.shown for value in columns["share"].values] == ["25.0", ""]
    assert columns["decode_ms"].values[0].raw == 25.0 and columns["decode_gmacs"].values[0].raw == 312.5
    assert "decode_peak_mib" not in columns, "nobody measured it here"
    tags = [value.tag for value in columns["cell"].values]
    assert "random decoder" in tags[0] and "tiles" not in tags[0]
    assert "tiles of 32" in tags[1] and "random" not in tags[1]
    assert "different batches" in table.notes[0]
    assert decode_table(RunView(tmp_path, "s", "", "", "", None, (bare,))) is None
