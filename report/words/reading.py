"""What a reader must know to read the numbers: definitions and interval methods, taken from the records."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ditbench.harness.store.records import Record
from ditbench.report.adaptation import groups_of
from ditbench.report.facets import chooses, facets_of, weak_guidance
from ditbench.report.fronts import front_probabilities
from ditbench.report.numbers import short
from ditbench.report.run_view import RunView
from ditbench.report.words.fronts import about_fronts
from ditbench.report.words.phrases import preparing

_NAMES = {
    "frechet": "Fréchet distance",
    "frechet_infinity": "its limit",
    "sfid": "sFID",
    "inception_score": "inception score",
    "kid": "KID",
    "rbf_mmd": "MMD",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
    "accuracy": "accuracy",
    "psnr": "PSNR",
    "ssim": "SSIM",
    "lpips": "LPIPS",
    "latent_error": "relative error",
    "latency_ms": "time a call",
    "sample_ms": "time a sampling loop",
    "image_ms": "time an image",
    "images_per_s": "images/s",
    "speedup": "speed-up",
    "difference": "difference",
    "training_image_ms": "training time an image",
    "training_ratio": "training time against the baseline",
}


def reading_notes(view: RunView) -> tuple[tuple[str, str], ...]:
    """(term, explanation) for every kind of number that this run has."""
    flops, latency = _complete(view, "flops"), _complete(view, "latency")
    quality = [record for record in _complete(view, "quality") if not record.spec.cost_only]
    fronts = any(row.on_front_gmacs is not None or row.on_front_time is not None for row in view.rows)
    drafts = (
        ("MACs", _about_macs(view, flops) if flops else ""),
        ("Time", f"{_about_calls(view)} {_intervals(latency)}" if latency else ""),
        ("Realised", _REALISED if any(row.realised is not None for row in view.rows) else ""),
        ("Quality", _about_quality(view, quality) if quality else ""),
        ("Fréchet∞", _about_limit(quality)),
        ("Paired", _about_pairs(view)),
        ("Front", about_fronts(front_probabilities(view)) if fronts else ""),
        ("Gap", _GAP if _complete(view, "kernels") else ""),
        *_about_facets(view),
        ("Weak", _WEAK if {"conditional", "unconditional"} <= set(map(weak_guidance, view.rows)) else ""),
        ("Difference", _about_differences(view)),
        ("Prepare", _about_preparing(view)),
        ("Adaptation", _about_adaptation(view)),
        ("Cost only", _COST_ONLY if any(row.spec.cost_only for row in view.rows) else ""),
        *((f"Imposed {key}", _IMPOSED) for key in dict.fromkeys(row.spec.imposed for row in view.rows) if key),
    )
    return tuple((term, " ".join(text.split())) for term, text in drafts if text)


_CALL = "A call is one denoiser call of the whole batch; guidance doubles its rows."
_PAIR = """A call is one denoiser call of the whole batch; guidance doubles its sequences, and where the branches run in
different ways these are calls of their own or share rows."""
_KINDS = """Where steps differ in what they execute, the time a call is the mean over the steps of the cell: each kind
of step is timed and weighs as many steps as are like it."""
_IMAGE = "Time an image is the whole sampling loop divided by the batch."
_REALISED = """Speed-up times the ratio of compute, both against the baseline, timed in turns in one process.
1.00: every saved operation became saved time; below: the hardware gave less than was promised."""
_GAP = "Wall clock minus device time: what a call spends waiting for its host."
_LIMIT = """A Fréchet distance is too high by about c / n for n samples. Its limit is the value extrapolated to
infinitely many, against the same reference; it may fall below zero by chance."""
_REFUSED = """Where an interval around it would not hold (too near zero, or too few samples), none is printed and the
table says why."""
_PAIRED = """Each sample beside the baseline's of the same noise and label. High PSNR and SSIM mean that the cheaper
cell draws the same picture, not that the picture is good. PSNR and SSIM (7x7 windows) are of the 8-bit images, the
relative error |a − b| / |b| is of what the sampler left."""
_COST_ONLY = """Random weights or an imposed cost: compute and time are true, samples mean nothing. Such a cell
has no quality figure and no place on a front."""
_PREPARE = """The timed sampling loop includes it; a timed call does not, so that a call of such a cell looks better
than its share of the loop."""
_PREPARED = "Prepared is the memory that holds what was made, beside the weights and within the peak."
_IMPOSED = """The config says which share of the model is on, in place of learned routers. The routers still run, so
that compute and time are those of a trained model that is on as much; which parts are on was not learned."""
_ON = "The share of a part that is on."
_ADAPTATION = """Trainable are the parameters that gradients reach, and 'of full' is their share of those that full
fine-tuning of the method trains. Peak training memory is weights, gradients, AdamW's two averages, the average that is
kept, and the most that the tensors of a step held at once. Training time is that of whole steps by the recipe that the
weights keep."""
_SEEDS = """Cells that differ in the training seed alone are one row: the mean over the seeds with Student's t
interval. All are sampled from the same noise, so an interval says how training varies. Differences are paired where
both sides have the same seeds, otherwise Welch's."""
_WEAK = """What guides where the guidance branch runs in a cheaper way: its prediction for the class itself (cond.) or
for no class (uncond.)."""
_DIFFERENCE = "How far the predictions of cheaper variants are from the reference's, both from the same noisy sample."


def _about_facets(view: RunView) -> list[tuple[str, str]]:
    """What the records say of what this run's cells choose; facets of which they say the same stand together."""
    names: dict[str, dict[str, None]] = {}
    shares: set[str] = set()
    for facets in map(facets_of, view.rows):
        for each in facets.every:
            names.setdefault(each.about, {})[each.name] = None
        shares |= {each.name for each in facets.shares}
    return [
        (_capital(", ".join(found)), f"{_ON} {about}" if shares & found.keys() else about)
        for about, found in names.items()
    ]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _about_differences(view: RunView) -> str:
    records = _complete(view, "agreement")
    return f"{_DIFFERENCE} {_intervals(records)}" if records else ""


def _about_adaptation(view: RunView) -> str:
    groups = groups_of(view)
    if not groups:
        return ""
    several = any(len(group.rows) > 1 for group in groups)
    ways = dict.fromkeys(group.about for group in groups)
    return " ".join((*ways, _ADAPTATION, _SEEDS * several, _intervals(_complete(view, "training"))))


def _about_calls(view: RunView) -> str:
    return " ".join(
        (_PAIR if any(map(weak_guidance, view.rows)) else _CALL, *[_KINDS] * any(map(chooses, view.rows)), _IMAGE)
    )


def _about_preparing(view: RunView) -> str:
    timed = any(row.value("latency", "prepare_ms") for row in view.rows)
    held = any(row.value("memory", "prepared_mib") for row in view.rows)
    if not timed and not held:
        return ""
    words = preparing(view.rows)
    return " ".join((f"{_capital(words)}, once.", *[_PREPARE] * timed, *[_PREPARED] * held))


def _about_macs(view: RunView, records: list[Record]) -> str:
    conventions = _distinct(str(record.detail.get("convention", "")) for record in records)
    stated = " ".join(text if text.endswith(".") else f"{text}." for text in conventions)
    step = "one forward of one sequence"
    if any(map(chooses, view.rows)):
        step += ", the mean over the steps"
    if any(map(weak_guidance, view.rows)):
        step += " and over both branches where they run otherwise"
    return f"""Multiply–accumulates, which papers of this field print as FLOPs. {stated} A step's figure is
    {step}; an image's figure sums all steps and counts guidance's second forward. {_sampled(records)}"""


def _sampled(records: list[Record]) -> str:
    """How the counts of cells whose work depends on the content were made; empty if all are exact."""
    ways = _distinct(
        quantity.interval
        for record in records
        if (quantity := record.values.get("gmacs_step")) is not None and quantity.low is not None
    )
    return f"Where tokens are selected by content: mean and {'; '.join(ways)}." if ways else ""


def _about_quality(view: RunView, records: list[Record]) -> str:
    counts = _distinct(
        f"{record.detail['samples']} samples against {record.detail['reference_samples']} references"
        for record in records
        if "samples" in record.detail and "reference_samples" in record.detail
    )
    about = ": ".join(filter(None, (f"Protocol {view.protocol}", "; ".join(counts))))
    name = "frechet_of_reference_halves"
    halves = {float(record.detail[name]) for record in records if name in record.detail}
    floor = f" The two halves of the reference are {short(halves.pop())} apart." if len(halves) == 1 else ""
    return f"{about}. Numbers of another protocol must not be set beside these.{floor} {_intervals(records)}"


def _about_limit(quality: list[Record]) -> str:
    limits = [record.values["frechet_infinity"] for record in quality if "frechet_infinity" in record.values]
    refused = any(limit.low is None for limit in limits)
    return f"{_LIMIT} {_REFUSED * refused}" if limits else ""


def _about_pairs(view: RunView) -> str:
    records = [record for record in _complete(view, "paired") if not record.spec.cost_only]
    return f"{_PAIRED} {_intervals(records)}" if records else ""


def _complete(view: RunView, measurement: str) -> list[Record]:
    return [
        record for row in view.rows if (record := row.records.get(measurement)) is not None and record.status == "ok"
    ]


def _distinct(texts: Iterable[str]) -> list[str]:
    sentences = (text.strip() for text in dict.fromkeys(texts))
    return [text for text in sentences if text]


def _intervals(records: list[Record]) -> str:
    """'Intervals: a, b: how; c: why there is none.' as the records say."""
    methods: dict[str, dict[str, None]] = {}
    for record in records:
        for name, quantity in record.values.items():
            if name in _NAMES and quantity.interval:
                methods.setdefault(_without_counts(quantity.interval), {})[_NAMES[name]] = None
    if not methods:
        return ""
    return "Intervals: " + "; ".join(f"{', '.join(names)}: {how}" for how, names in methods.items()) + "."


def _without_counts(method: str) -> str:
    """One sentence for all records: ranks and numbers of rounds differ from record to record, the method does not."""
    method = re.sub(r"order statistics \d+ and \d+ of \d+", "order statistics k and n + 1 − k of n timings", method)
    return re.sub(r"; \d+ rounds?, ", "; ", method)
