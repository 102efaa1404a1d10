"""A distribution that adds extractors and figures of quality, some of which misbehave."""

import torch

from ditbench.harness.quality.metrics import MetricEntry, SampleSet
from ditbench.harness.store.records import Column, Quantity


class Corners:
    """Four numbers a picture: the mean of each quarter."""

    name, version, dims = "means of quarters", "3", 4

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        gray = images.float().mean(-1)
        return torch.nn.functional.adaptive_avg_pool2d(gray[:, None], 2).flatten(1)


class Wrong(Corners):
    dims = 5


def blank(images: torch.Tensor) -> torch.Tensor:
    return images.new_zeros(len(images), 1)


def brightness(given: SampleSet) -> dict[str, Quantity]:
    """Of the samples and of the reference, 0 to 255."""
    assert given.reference_images is not None
    sets = {"brightness": given.images, "brightness_reference": given.reference_images}
    return {
        name: Quantity(value=next(source.batches(len(source))).mean(), unit="1", interval="exact")
        for name, source in sets.items()
    }


BRIGHTNESS = MetricEntry(
    "ditbench_figures:brightness",
    "mean grey level",
    version="7",
    columns=(Column(name="brightness", title="mean grey", digits=3),),
)


def spread(given: SampleSet) -> Quantity:
    if given.labels.max() > 0 and len(given.features) < 50:
        raise ValueError("fewer than 50 samples")
    return Quantity(value=given.features.std(), unit="1", low=0.0, high=9.0, interval="made up")


def taken(given: SampleSet) -> dict[str, Quantity]:
    return {"frechet": Quantity(value=0.0, unit="1", interval="exact")}
