"""Features and a reference -> every figure that both allow, with intervals, and what a comparison needs later."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ditbench.harness.quality.features import FeatureSet
from ditbench.harness.quality.frechet import FrechetResult, frechet_of_blocks
from ditbench.harness.quality.inception_score import inception_score
from ditbench.harness.quality.kernel import KernelDistance, kernel_distance, kernel_jackknife, rbf_distance
from ditbench.harness.quality.neighbours import neighbour_metrics
from ditbench.harness.quality.reference import Reference
from ditbench.harness.stats.intervals import Estimate

Progress = Callable[[int, int], None]

SUBSET = 1000  # images a subset of the published KID
SCORE_BLOCK = 5000  # images a block of the published inception score
NEIGHBOURS = ("precision", "recall", "density", "coverage")


@dataclass
class Figures:
    """Estimates by name; leave_one_out: the same with one block of samples left out each; missing: name -> why.

    distance: what ``frechet`` and ``frechet_infinity`` are made of, for the mean over seeds.
    """

    values: dict[str, Estimate] = field(default_factory=dict)
    leave_one_out: dict[str, tuple[float, ...]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    distance: FrechetResult | None = None

    def add(self, name: str, estimate: Estimate, without_block: tuple[float, ...] = ()) -> None:
        self.values[name] = estimate
        if without_block:
            self.leave_one_out[name] = without_block


def figures(
    found: FeatureSet,
    reference: Reference,
    *,
    published: bool,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Figures:
    """frechet, frechet_infinity, sfid, inception_score, kid, rbf_mmd, precision, recall, density, coverage.

    ``published``: KID is the mean of 100 subsets of 1000, as Inception papers report it; else the unbiased estimate of
    all samples. ``device`` makes the products of the pairwise metrics.
    """
    result = Figures()
    distance = frechet_of_blocks(found.statistics["features"], reference.moments.mean, reference.moments.covariance)
    result.add("frechet", distance.frechet, distance.leave_one_out)
    result.distance = distance
    # the limit's pseudo-values are the distance's own
    result.add("frechet_infinity", distance.infinity, distance.leave_one_out)
    _spatial(result, found, reference)
    _scores(result, found)
    _pairwise(result, found, reference, published, device, progress)
    return result


def _spatial(result: Figures, found: FeatureSet, reference: Reference) -> None:
    if "spatial" not in found.statistics:
        return
    if reference.spatial is None:
        result.missing["sfid"] = "the reference has no spatial statistics (mu_s, sigma_s)"
        return
    spatial = frechet_of_blocks(found.statistics["spatial"], reference.spatial.mean, reference.spatial.covariance)
    result.add("sfid", spatial.frechet, spatial.leave_one_out)


def _scores(result: Figures, found: FeatureSet) -> None:
    if "logits" not in found.arrays:
        return
    splits = max(1, found.count // SCORE_BLOCK)
    scored = inception_score(found.arrays["logits"], splits)
    result.add("inception_score", scored.estimate, scored.leave_one_out)


def _pairwise(
    result: Figures,
    found: FeatureSet,
    reference: Reference,
    published: bool,
    device: str,
    progress: Progress | None,
) -> None:
    if reference.features is None:
        result.missing |= dict.fromkeys(("kid", "rbf_mmd", *NEIGHBOURS), reference.without)
        return
    ours, theirs = found.arrays["features"], reference.features
    if not published:
        kid: KernelDistance = kernel_jackknife(ours, theirs, device=device)
        result.add("kid", kid.estimate, kid.leave_one_out)
    elif (least := min(len(ours), len(theirs))) < SUBSET:
        result.missing["kid"] = f"a subset of {SUBSET:,} does not fit {least:,} images"
    else:
        kid = kernel_distance(ours, theirs, subset_size=SUBSET, device=device)
        result.add("kid", kid.estimate, kid.leave_one_out)
    try:
        gaussian = rbf_distance(ours, theirs, device=device, progress=progress)
        result.add("rbf_mmd", gaussian.estimate, gaussian.leave_one_out)
    except ValueError as error:
        result.missing["rbf_mmd"] = str(error)
    try:
        near = neighbour_metrics(ours, theirs, device=device, progress=progress)
    except ValueError as error:
        result.missing |= dict.fromkeys(NEIGHBOURS, str(error))
        return
    for name in NEIGHBOURS:
        result.add(name, getattr(near, name), near.leave_one_out.get(name, ()))
