"""What turning latents into pictures costs, beside the time of the sampling loop that makes the latents."""

from __future__ import annotations

from ditbench.harness.store.records import Quantity
from ditbench.report.row import Row
from ditbench.report.run_view import RunView
from ditbench.report.tables.rows import plain_marks_of, tag_of
from ditbench.report.tables.table import Table, number_column, text_column


def decode_table(view: RunView) -> Table | None:
    """One row a cell whose decoder was measured; None if there is none."""
    rows = view.having("decode", "decode_ms")
    if not rows:
        return None
    details = [row.detail("decode") for row in rows]

    def figures(name: str) -> list[Quantity | None]:
        return [row.quantity("decode", name) for row in rows]

    shares = [decoder_share(row) for row in rows]
    columns = (
        text_column("cell", "Cell", [row.cell for row in rows], tags=[_tag(row) for row in rows]),
        text_column("dtype", "number type", [str(detail.get("dtype", "")) for detail in details]),
        number_column("picture", "side", "px", [detail.get("picture") for detail in details], decimals=0),
        number_column("batch", "batch", "1", [detail.get("batch") for detail in details], decimals=0),
        number_column("decode_ms", "time/image", "ms", figures("decode_ms")),
        number_column("decode_images_per_s", "throughput", "images/s", figures("decode_images_per_s")),
        number_column("decode_gmacs", "MACs/image", "GMAC", figures("decode_gmacs")),
        number_column("decode_peak_mib", "peak memory", "MiB", figures("decode_peak_mib"), decimals=0),
        number_column("share", "of the whole time", "%", shares, decimals=1),
    )
    note = (
        "Latents are decoded by themselves, in calls of at most the batch. MACs are counted as everywhere here, "
        "with every tile whole where latents are decoded in tiles; group norm and enlarging are in them. "
        "Peak memory: the decoder's weights and the tensors of one batch, without the denoiser's."
    )
    if any(share is not None for share in shares):
        note += " Of the whole time: decoding an image, as a share of that and the sampling loop of an image."
        if any(row.detail("decode").get("batch") != row.batch for row in rows):
            note += " Loop and decoder were timed at different batches."
    caption = "What the decoder adds to an image."
    return Table("decode", caption, columns, plain_marks_of(rows), (note,)).without_empty_columns()


def decoder_share(row: Row) -> float | None:
    """Decoding an image in percent of the whole image's time, 0 to 100; None without the latent loop's time."""
    loop, decode = row.value("latency", "image_ms"), row.value("decode", "decode_ms")
    return None if loop is None or decode is None else 100 * decode / (loop + decode)


def _tag(row: Row) -> str:
    random = "random decoder" if row.detail("decode").get("cost_only") else ""
    tile = row.detail("decode").get("tile")
    tags = [tag_of(row), random, f"tiles of {tile}" if tile and row.detail("decode").get("tiles", 1) > 1 else ""]
    return ", ".join(tag for tag in tags if tag)
