"""The models of a job, built at first use."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ditbench.harness.run.job import Job

if TYPE_CHECKING:
    from ditbench.harness.sample.generate import BoundCell
    from ditbench.harness.sample.picture_decoder import PictureDecoder


class LazyCell:
    """The bound cell and baseline, built at first use: counting FLOPs needs neither."""

    def __init__(self, job: Job) -> None:
        import torch

        torch.set_num_threads(job.spec.threads or torch.get_num_threads())
        self._job = job
        self._cell: BoundCell | None = None
        self._decoder: PictureDecoder | None = None
        self.load_ms = 0.0

    def get(self) -> BoundCell:
        """The cell of the job's spec."""
        if self._cell is None:
            from ditbench.harness.sample.generate import bind

            begin = time.perf_counter()
            self._cell = bind(self._job.spec, self._job.weights)
            self.load_ms = (time.perf_counter() - begin) * 1e3
        return self._cell

    def decoder(self) -> PictureDecoder:
        """The decoder of the job's spec."""
        if self._decoder is None:
            from ditbench.harness.sample.picture_decoder import bind_decoder

            spec = self._job.spec
            assert spec.decoder is not None, "asked for only where the cell decodes"
            self._decoder = bind_decoder(spec.decoder, self._job.decoder_weights, spec.device)
        return self._decoder

    def baseline_decoder(self) -> PictureDecoder | None:
        """The decoder of the baseline that is timed beside the cell, the cell's own when it is the same one."""
        other = self._job.baseline
        if other is None or other.decoder is None:
            return None
        if other.decoder == self._job.spec.decoder:
            return self.decoder()
        from ditbench.harness.sample.picture_decoder import bind_decoder

        return bind_decoder(other.decoder, self._job.baseline_decoder_weights, other.device)

    def release(self) -> None:
        """Give up the models' memory, for other processes that need it. They are built again at the next use."""
        import torch

        self._cell = self._decoder = None
        if self._job.spec.device == "cuda":
            torch.cuda.empty_cache()

    def baseline(self) -> BoundCell | None:
        """The baseline to time beside the cell; None if the cell is it, or if it runs on another device."""
        spec, other = self._job.spec, self._job.baseline
        if other is None or other.cell == spec.cell or other.device != spec.device:
            return None
        return self.any_baseline()

    def any_baseline(self) -> BoundCell:
        """The baseline, bound, sharing the cell's model when it is the same one."""
        from ditbench.harness.sample.generate import BoundCell, bind, bind_sampler

        spec, other = self._job.spec, self._job.baseline
        assert other is not None, "asked for only where the suite names one"
        same = ("method", "config", "weights_sha256", "device", "dtype", "mode", "attention", "seed", "modifiers")
        if all(getattr(spec, name) == getattr(other, name) for name in same):
            model = self.get().model
            return BoundCell(other, model, *bind_sampler(other, model))
        return bind(other, self._job.baseline_weights)
