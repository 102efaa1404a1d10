"""Published weights of models and of the autoencoder, by the names that suites give them (``asset:NAME``)."""

from __future__ import annotations

from ditbench.harness.assets.values import KnownAsset
from ditbench.methods.public_weights import PUBLIC

_VAE = "https://huggingface.co/stabilityai/sd-vae-ft-ema"

WEIGHTS = (
    *(
        # without a public digest: what is used is what the user has, told by its own
        KnownAsset(
            each.name,
            "weights",
            each.summary,
            each.file_name,
            each.published,
            each.licence,
            "",
            (each.waits,),
            each.method,
            dict(each.config),
        )
        for each in PUBLIC
    ),
    KnownAsset(
        "sd-vae-ft-ema",
        "weights",
        "autoencoder of latents, as diffusers saves it",
        "sd-vae-ft-ema",
        _VAE,
        "MIT",
        "",
        ("suites imagenet256, imagenet512",),
        folder=True,
    ),
)
