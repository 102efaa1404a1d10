"""Self-check of what generates: schedules, samplers, FLOPs, the shipped models and the random streams.

Parts of the package are imported inside the checks, so that a part that cannot be imported fails its own checks only.
"""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from ditbench.harness.selfcheck.checks import Case, Outcome, Vector, exactly, near, vectors


def schedules() -> list[Case]:
    """Betas, cumulative products, respacing and variances; samplers where the denoiser is known in closed form."""
    stored = vectors()
    return [Case(v["name"], v["source"], partial(_schedule, v)) for v in stored["schedules"]] + [
        Case(v["name"], v["source"], partial(_sampled, v)) for v in stored["samplers"]
    ]


def flops() -> list[Case]:
    """Multiply-accumulates by operator, counted as ``ditbench flops`` does."""
    return [Case(v["name"], v["source"], partial(_counted, v)) for v in vectors()["flops"]]


def models() -> list[Case]:
    """Digests of the shipped weights, and what some of them predict for an input of sines."""
    stored = vectors()["models"]
    digests = Case("digests of the shipped weights", "the manifest beside the weights", _digests)
    forwards = [Case(v["name"], stored["source"], partial(_forward, stored, v)) for v in stored["forwards"]]
    tokens = [
        Case(f"{v['name']}: tokens kept", stored["source"], partial(_kept, stored, v))
        for v in stored["forwards"]
        if v["kept"] is not None
    ]
    return [digests, *forwards, *tokens]


def streams() -> list[Case]:
    """The counter-based generator against its published vectors; label and noise of single samples."""
    stored = vectors()["streams"]
    published, samples = stored["philox"], stored["samples"]
    words = [Case(v["name"], published["source"], partial(_words, v)) for v in published["vectors"]]
    return words + [Case(v["name"], samples["source"], partial(_stream, v)) for v in samples["vectors"]]


def _schedule(vector: Vector) -> Outcome:
    from ditbench.methods.diffusion.schedules import linear_betas, noise_schedule

    name = vector["array"]
    if name == "linear_betas":
        array = linear_betas(vector["steps"])
    else:
        schedule = noise_schedule(vector["steps"], vector["spacing"])
        if name == "timesteps":
            return exactly(list(schedule.timesteps), vector["expected"])
        array = getattr(schedule, name)
    measured = [float(array[index]) for index in vector["index"]]
    return near(measured, vector["expected"], vector["tolerance"], relative=True)


def _sampled(vector: Vector) -> Outcome:
    """One pixel of data ~ N(0, s²) from z = 1: the best noise prediction is linear in x. 'Noise' is a constant."""
    from ditbench.methods.diffusion.sampler import DiffusionSampler, SamplerOptions
    from ditbench.methods.registry import samplers

    options = SamplerOptions(**vector["options"])
    sampler: DiffusionSampler = samplers()[vector["sampler"]].load()(vector["steps"], options)

    def denoise(x: Tensor, step: int, t: float | None = None) -> Tensor:
        cumprod = float(sampler.schedule.alphas_cumprod[sampler.schedule.steps - 1 - step])
        slope: float = (1 - cumprod) ** 0.5 / (cumprod * vector["deviation"] ** 2 + 1 - cumprod)
        return slope * x

    z = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    states: list[float] = []
    sampler.sample(denoise, z, lambda: z * vector["noise"], lambda _, x: states.append(float(x)))
    return near([states[step] for step in vector["after"]], vector["expected"], vector["tolerance"], relative=True)


def _counted(vector: Vector) -> Outcome:
    from ditbench.harness.measure.count_cell import measure_flops
    from ditbench.harness.store.records import CellSpec

    method, steps = vector["method"], vector["steps"]
    spec = CellSpec(cell=method, method=method, config=vector["config"], sampler="ddim", steps=steps)
    result = measure_flops(spec)
    # the mean over the steps, so that the sum over them is a whole number again
    measured = {name: round(gmacs * 1e9 * steps) for name, gmacs in sorted(result.by_operator.items())}
    measured["total"] = round(result.gmacs_step * 1e9 * steps)
    return exactly(measured, vector["expected"])


def _digests() -> Outcome:
    from ditbench.methods.weights import sha256_file
    from ditbench.methods.zoo import FOLDER, manifest

    entries = manifest()
    return exactly(
        {name: sha256_file(FOLDER / entry["file"]) for name, entry in entries.items()},
        {name: entry["sha256"] for name, entry in entries.items()},
    )


def _forward(stored: Vector, vector: Vector) -> Outcome:
    out, _ = _predicted(stored, vector)
    return near(out.flatten()[:: stored["stride"]].tolist(), vector["expected"], stored["tolerance"])


def _kept(stored: Vector, vector: Vector) -> Outcome:
    return exactly(_predicted(stored, vector)[1], vector["kept"])


def _predicted(stored: Vector, vector: Vector) -> tuple[Tensor, list[list[int]]]:
    """Output (3, 2, 8, 8) for x = 1.5 sin(0.7 b + 1.3 i + 2.1 j), and by call the kept tokens a layer, if selected."""
    from ditbench import methods
    from ditbench.methods.work import WorkLedger
    from ditbench.methods.zoo import checkpoint

    model = methods.load_weights(methods.build(vector["method"]), checkpoint(vector["weights"]))
    batch, row, column = (torch.arange(n, dtype=torch.float64) for n in (3, 8, 8))
    phase = 0.7 * batch[:, None, None, None] + 1.3 * row[:, None] + 2.1 * column
    ledger = WorkLedger()
    x, t, y = (1.5 * torch.sin(phase)).float(), torch.tensor(stored["t"]), torch.tensor(stored["y"])
    with torch.inference_mode():
        out: Tensor = model(x, t, y, ledger=ledger, **vector["options"])
    return out, [list(entry.decided.counts) for entry in ledger.entries if entry.decided is not None]


def _words(vector: Vector) -> Outcome:
    # numpy counts up before it draws
    counter = int.from_bytes(b"".join(int(word, 16).to_bytes(8, "little") for word in vector["counter"]), "little")
    before = (counter - 1) % 2**256
    generator = np.random.Philox(key=[int(word, 16) for word in vector["key"]], counter=before)
    drawn = cast("np.ndarray[Any, np.dtype[np.uint64]]", generator.random_raw(4))
    return exactly([f"{int(word):016x}" for word in drawn], vector["expected"])


def _stream(vector: Vector) -> Outcome:
    from ditbench.harness.sample.seeds import SampleStreams
    from ditbench.methods.facts import ClassLabels, Facts
    from ditbench.methods.space import Space

    facts = Facts(Space(1, (2, 2)), conditions=(ClassLabels(vector["classes"]),))
    drawn = SampleStreams(vector["seed"], [vector["index"]], facts, "cpu")
    measured = {
        "label": int(drawn.conditions["label"][0]),
        "noise": [drawn.noise().flatten().tolist() for _ in range(2)],
    }
    return exactly(measured, vector["expected"])
