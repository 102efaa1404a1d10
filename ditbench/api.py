"""The Python API of runs: ``ditbench.run(suite)`` and ``ditbench.load_run(folder)``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ditbench.harness.errors import InputError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

# Figures of which more is better; of all others less is.
_MORE_IS_BETTER = {
    "images_per_s", "speedup", "realised", "precision", "recall", "density", "coverage", "accuracy",
    "inception_score", "psnr", "ssim",
}  # fmt: skip


class Run:
    """The folder of a run, read anew at each question. Raises InputError where it is not one."""

    def __init__(self, folder: str | Path) -> None:
        from ditbench.report.run_view import load_run

        self.folder = Path(folder)
        load_run(self.folder)

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    @property
    def cells(self) -> pd.DataFrame:
        """One row a cell, by its name: the columns of ``cells.csv``, in its units and full precision."""
        import pandas as pd

        from ditbench.report.run_view import load_run
        from ditbench.report.tables.cells import cells_table

        table = cells_table(load_run(self.folder))
        data = {column.key: [value.raw for value in column.values] for column in table.columns}
        return pd.DataFrame(data).set_index("cell")

    @property
    def records(self) -> pd.DataFrame:
        """One row a measured figure: cell, measurement, figure, value, low, high, unit, interval, protocol, identity;
        of a failed measurement one row with its failure and no figure."""
        import pandas as pd

        from ditbench.harness.store.store import RunStore

        rows: list[dict[str, Any]] = []
        for cell, found in RunStore(self.folder).cells().items():
            for name, record in found.items():
                shared = {"cell": cell, "measurement": name, "status": record.status, "identity": record.identity}
                if record.failure is not None:
                    rows.append({**shared, "failure": record.failure.message})
                for figure, quantity in record.values.items():
                    rows.append({**shared, "figure": figure, **quantity.model_dump(), "protocol": record.protocol})
        columns = ["cell", "measurement", "figure", "value", "low", "high", "unit", "interval", "protocol"]
        return pd.DataFrame(rows, columns=[*columns, "status", "failure", "identity"])

    def front(self, cost: str = "gmacs_image", quality: str = "frechet") -> list[str]:
        """Names of the cells that no other beats in both figures, the cheapest first.

        Raises InputError for a figure that ``cells`` has no column of.
        """
        from ditbench.harness.stats.pareto import Point, pareto_front

        table = self._figures(cost, quality)
        signs = {name: -1.0 if name in _MORE_IS_BETTER else 1.0 for name in (cost, quality)}
        points = [
            Point(str(cell), signs[cost] * row[cost], signs[quality] * row[quality]) for cell, row in table.iterrows()
        ]
        return list(pareto_front(points).names)

    def best(self, metric: str = "frechet", **limits: float) -> pd.Series[Any]:
        """The row of ``cells`` with the best ``metric`` among those within all limits.

        ``best("frechet", gmacs_image=5)``: at most 5 GMACs an image; of figures of which more is better (precision,
        speedup) a limit is the least. Raises InputError for an unknown figure, and where no cell is within.
        """
        table = self._figures(metric, *limits)
        for name, limit in limits.items():
            table = table.query(f"`{name}` {'>=' if name in _MORE_IS_BETTER else '<='} {float(limit)!r}")
        if table.empty:
            words = ", ".join(f"{name}={limit:g}" for name, limit in limits.items())
            raise InputError(f"no cell of {self.folder} has {metric} within {words or 'the run'}")
        chosen = table[metric].idxmax() if metric in _MORE_IS_BETTER else table[metric].idxmin()
        return self.cells.xs(str(chosen))  # type: ignore[return-value]

    def figure(self, name: str, format: str = "png") -> Path:
        """The file of a picture of the report: ``figure("pareto_gmacs")``. Raises InputError where there is none."""
        folder = self.folder / "report"
        there = {file.stem: file for file in sorted(folder.rglob(f"*.{format}"))}
        if name not in there:
            hint = did_you_mean(name, there) or f" (there are: {', '.join(there) or 'none'})"
            raise InputError(f"{folder} has no picture {name!r}{hint}")
        return there[name]

    def _figures(self, *names: str) -> pd.DataFrame:
        """The cells that have all of these figures, as numbers."""
        import pandas as pd

        cells = self.cells
        for name in names:
            if name not in cells:
                raise InputError(f"cells have no figure {name!r}{did_you_mean(name, cells.columns)}")
        numbers = {name: pd.to_numeric(cells[name], errors="coerce") for name in names}
        return pd.DataFrame(numbers).dropna()


def load_run(folder: str | Path) -> Run:
    """The run in ``folder``. Raises InputError where there is none."""
    return Run(folder)


def run(
    suite: str | Path,
    *,
    out: str | Path | None = None,
    only: str | None = None,
    device: str | None = None,
    limit: int | None = None,
    nproc: int = 1,
) -> Run:
    """Run a suite, or resume it, write its report, and return the run; see ``ditbench run --help``.

    suite   a shipped suite's name, or a file
    out     the run's folder; None: runs/SUITE
    only    a glob of cells; device: cpu or cuda; limit: at most so many samples; nproc: processes that sample a cell

    Cells that fail are in ``records`` with their reason. Raises InputError for bad input, StoreError for a full disk.
    """
    from ditbench.cli.run import carry_out

    return Run(carry_out(str(suite), None if out is None else Path(out), only, device, limit, nproc).folder)
