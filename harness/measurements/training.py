"""``training``: what a step of the recipe that made a cell's weights costs."""

from __future__ import annotations

from ditbench.harness.errors import InputError
from ditbench.harness.measure.options import TrainingOptions
from ditbench.harness.measurements.bench import Finding, Turn
from ditbench.harness.measurements.measurement import Asked, Measurement


class Training(Measurement[TrainingOptions]):
    name = "training"
    summary = "trained parameters, their gradients and optimiser, peak memory and time of a training step"
    options = TrainingOptions
    needs = frozenset({"weights", "trained", "baseline", "clock"})

    def check(self, asked: Asked[TrainingOptions]) -> None:
        if asked.weights is None:
            raise InputError(
                "training measures the recipe that the weights keep: give the cell weights, or take training out of "
                "measure",
                asked.here,
            )

    def run(self, turn: Turn) -> Finding:
        from ditbench.harness.measure.training import Trainee, measure_training

        job, spec, other = turn.job, turn.spec, turn.job.baseline
        assert job.weights is not None, "planned only for a cell with weights"
        beside = None
        if other is not None and other.cell != spec.cell and other.device == spec.device and job.baseline_weights:
            beside = Trainee(other, job.baseline_weights)
        result = measure_training(Trainee(spec, job.weights), beside, turn.options(TrainingOptions))
        return Finding(result.values, result.detail)
