"""``flops`` and ``time``: one-off measurements, in tables or as JSON with the names of ``cells.csv``."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ditbench.cli.overrides import parse_overrides, spec_of
from ditbench.harness.assets.locations import asset_config, sha256_of, weights_path
from ditbench.harness.environment import environment, resolve_threads
from ditbench.harness.errors import InputError
from ditbench.harness.store.records import CellSpec, Quantity

if TYPE_CHECKING:
    from ditbench.harness.measure.flops import FlopsResult


def show_flops(
    method: str, weights: str | None, steps: int, guidance: float, settings: list[str], as_json: bool
) -> None:
    """One forward of one sequence, mean over a sampling grid, by operator class."""
    from ditbench.harness.measure.count_cell import measure_flops
    from ditbench.harness.measure.operators import CONVENTION, UncountedOperatorError
    from ditbench.harness.measure.proof import WorkMismatchError
    from ditbench.report.numbers import scale_for

    spec, path = weighted(spec_of(method, settings, steps=steps, guidance_scale=guidance), weights)
    try:
        result = measure_flops(spec, path)
    except (WorkMismatchError, UncountedOperatorError) as error:
        print(f"error: {method}: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    if as_json:
        print(
            json.dumps(
                {
                    "method": method,
                    "config": parse_overrides(settings),
                    "params": result.params,
                    "gmacs": result.gmacs_step,
                    "gmacs_by_operator": dict(result.by_operator),
                    "gmacs_by_part": dict(result.parts),
                    "facets": result.facets,
                    "proof": dict(result.proof),
                    **result.extra,
                    "weights": _weights_note(spec),
                    "steps": steps,
                    "guidance": guidance,
                    **({"samples": len(result.gmacs_images)} if len(result.gmacs_images) > 1 else {}),
                    "convention": CONVENTION,
                },
                indent=1,
            )
        )
        return
    scale = scale_for([result.gmacs_step], "GMAC")
    total = f"{result.gmacs_step / scale.divisor:.4f} {scale.unit}"
    print(f"{method}: {total} a forward of one sequence, {result.params:,} parameters")
    operators = sorted(result.by_operator.items(), key=lambda item: -item[1])
    for name, gmacs, where in [(*pair, "") for pair in operators] + [
        (*pair, "  of these") for pair in result.parts.items()
    ]:
        print(f"  {name:<13} {gmacs / scale.divisor:12.4f}  {gmacs / result.gmacs_step:6.1%}{where}")
    for line in [*_chosen(result.facets or {}), *_compared(result.extra.get("compute"))]:
        print(f"  {line}")
    if note := _flops_note(spec, result):
        print(note)
    print(f"Convention: {CONVENTION}.")


def weighted(spec: CellSpec, weights: str | None) -> tuple[CellSpec, Path | None]:
    """The spec with the digest of its weights, and their file. Raises InputError."""
    from ditbench.harness.sample.generate import checkpoint_problem

    if weights is None:
        return spec, None
    path = weights_path(weights)
    spec = spec.model_copy(update={"config": {**asset_config(weights), **spec.config}})
    if (problem := checkpoint_problem(spec, path)) is not None:
        raise InputError(problem.message)
    found = {"weights": weights, "weights_sha256": sha256_of(path), "cost_only": bool(spec.imposed)}
    return spec.model_copy(update=found), path


def _weights_note(spec: CellSpec) -> str:
    if spec.imposed:
        return f"cost only, imposed {spec.imposed}"
    return spec.weights or "random: cost only"


def _chosen(facets: Mapping[str, Any]) -> list[str]:
    """'active: tokens 71.3 %' (means over steps and layers), 'patch size: 25 x 4, 25 x 2'."""
    shares = []
    for facet in facets.get("shares", []):
        every = [share for step in facet["values"] for share in step]
        shares.append(f"{facet['name']} {sum(every) / len(every):.1%}")
    lines = [f"active: {', '.join(shares)}"] if shares else []
    for facet in facets.get("labels", []):
        lines.append(f"{facet['name']}: {_runs(facet['values'])}")
        if facet["guidance"] is not None:
            lines.append(f"{facet['name']} of the guidance branch: {_runs(facet['guidance'])}")
    return lines


def _compared(compute: Mapping[str, Any] | None) -> list[str]:
    """The loop's compute as shares of the same loop with the fullest choice."""
    if compute is None:
        return []
    shares = {"as counted": compute["share"], **compute["by_convention"]}
    return [f"compute, {compute['of']} = 1: {share:.4f} ({how})" for how, share in shares.items()]


def _runs(values: list[Any]) -> str:
    """'25 x 4, 25 x 2' from noise to image; with many changes only how many of each."""
    told = ["/".join(value) if isinstance(value, list) else str(value) for value in values]
    runs = [(label, len(list(group))) for label, group in groupby(told)]
    if len(runs) > 4:
        counts = sorted(Counter(told).items(), reverse=True)
        return ", ".join(f"{count} x {label}" for label, count in counts) + ", interleaved"
    return ", ".join(f"{count} x {label}" for label, count in runs)


def _flops_note(spec: CellSpec, result: FlopsResult) -> str:
    if spec.imposed:
        return f"Cost only: {spec.imposed} is imposed, not learned."
    if result.routers_open:
        return "No weights given: routers are open, as before training (--weights FILE)."
    if len(result.gmacs_images) > 1:
        return f"As the data decided in {len(result.gmacs_images)} samples of {spec.steps} {spec.sampler} steps."
    return ""


@dataclass(frozen=True)
class TimeRequest:
    """What ``ditbench time`` was asked for."""

    method: str
    weights: str | None
    against: str | None
    batch: int
    dtype: str
    device: str
    threads: int
    compiled: bool
    steps: int
    guidance: float
    loop: bool
    budget_s: float


def show_time(request: TimeRequest, settings: list[str], as_json: bool) -> None:
    """Time in this process, which has done nothing else. ``--set`` applies to the method, not to ``--against``."""
    import torch

    from ditbench.harness.measure.compare_times import measure_latency
    from ditbench.harness.measure.count_cell import measure_flops
    from ditbench.harness.measure.options import LatencyOptions
    from ditbench.harness.sample.generate import DTYPES, bind

    if request.dtype not in DTYPES:
        raise InputError(f"--dtype {request.dtype}: one of {', '.join(DTYPES)}")
    if request.device not in ("cpu", "cuda"):
        raise InputError(f"--device {request.device}: cpu or cuda")
    if request.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: this machine's torch sees no GPU")
    if request.device == "cpu" and request.dtype == "tf32":
        raise InputError("--dtype tf32 rounds float32 on a GPU only: a CPU has float32")
    threads = resolve_threads(request.threads)
    torch.set_num_threads(threads)
    fields: dict[str, Any] = {
        "dtype": request.dtype,
        "device": request.device,
        "threads": threads,
        "steps": request.steps,
        "guidance_scale": request.guidance,
        "mode": "compiled" if request.compiled else "eager",
        "cost_only": True,
    }
    spec, path = weighted(spec_of(request.method, settings, **fields), request.weights)
    other = spec_of(request.against, [], **(fields | {"cell": "baseline"})) if request.against else None
    options = LatencyOptions(
        batch=request.batch, levels=["step", "sample"] if request.loop else ["step"], budget_s=request.budget_s
    )
    baseline = bind(other, None) if other else None
    result = measure_latency(bind(spec, path), baseline, options, 0.0)
    values, counted = dict(result.values), measure_flops(spec, path)
    answer: dict[str, Any] = {
        **asdict(request),
        "threads": threads,
        "config": parse_overrides(settings),
        "weights": _weights_note(spec),
        "latency_level": f"step: one denoiser call of the whole batch{_doubled(request)}, mean over the steps",
        "gmacs": counted.gmacs_step,
        "params": counted.params,
    }
    if other is not None:
        ratio = counted.gmacs_image / measure_flops(other).gmacs_image
        answer["flops_ratio"] = ratio
        values["realised"] = _times(values["speedup"], ratio)
    for name, quantity in values.items():
        answer[name] = quantity.value
        answer[f"{name.removesuffix('_ms')}_low"] = quantity.low
        answer[f"{name.removesuffix('_ms')}_high"] = quantity.high
        answer[f"{name}_interval"] = quantity.interval
    answer["detail"] = result.detail
    answer["environment"] = environment(request.device)
    print(json.dumps(answer, indent=1)) if as_json else _print_time(request, answer, values, result.detail)


def _doubled(request: TimeRequest) -> str:
    return ", no guidance" if request.guidance == 1.0 else f", both branches of guidance {request.guidance:g}"


def _times(quantity: Quantity, factor: float) -> Quantity:
    def scaled(value: float | None) -> float | None:
        return None if value is None else value * factor

    return quantity.model_copy(
        update={"value": quantity.value * factor, "low": scaled(quantity.low), "high": scaled(quantity.high)}
    )


def _print_time(
    request: TimeRequest, answer: dict[str, Any], values: dict[str, Quantity], detail: dict[str, Any]
) -> None:
    where = answer["environment"]["device_name"]
    mode = "compiled" if request.compiled else "eager"
    print(f"{request.method} on {where}, {request.dtype}, {mode}, batch {request.batch}, {answer['threads']} threads")
    print(f"weights {answer['weights']}; level 'step' is one denoiser call of the whole batch{_doubled(request)}")
    names = {
        "latency_ms": "ms a step",
        "sample_ms": f"ms a loop of {request.steps} steps",
        "image_ms": f"ms an image of {request.steps} steps",
        "prepare_ms": f"ms to plan and prepare weights for {request.steps} steps, once",
        "images_per_s": f"images/s at {request.steps} steps",
        "speedup": f"speed-up over {request.against}",
        "realised": "realised share of the FLOPs saving",
    }
    for name, quantity in values.items():
        bounds = f"({quantity.interval.split('; ')[-1]})"
        if quantity.low is not None and quantity.high is not None:
            bounds = f"[{_shown(quantity.low)}, {_shown(quantity.high)}]"
        print(f"  {names.get(name, name):<36} {_shown(quantity.value):>10}  {bounds}")
    for step, times in detail["layouts_ms"].items():
        tried = ", ".join(f"{layout} {_shown(ms)}" for layout, ms in times.items())
        print(f"  {step}: {min(times, key=lambda each: times[each])} (ms: {tried})")
    if "flops_ratio" in answer:
        print(f"  {'FLOPs ratio':<36} {answer['flops_ratio']:>10.4g}  (exact)")
    if detail["launch_bound"]:
        print(f"  launch-bound: the device waits {detail['gap_share']:.0%} of the time")


def _shown(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
