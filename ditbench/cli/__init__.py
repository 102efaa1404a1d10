"""The verbs of ``ditbench``. Imports inside the verbs keep ``--help`` and ``list`` fast; torch comes only with work.

Exit codes: 0 all well; 1 a cell failed, a comparison crossed its threshold, a check failed; 2 bad input, in one line.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ditbench.harness.errors import InputError, StoreError

app = typer.Typer(
    name="ditbench",
    help="Benchmark efficient diffusion transformers: quality, FLOPs and honest time, from a YAML suite to a PDF.",
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)

init = typer.Typer(help="Write the beginning of a plugin or of a suite, ready to run.", no_args_is_help=True)
app.add_typer(init, name="init")

SuiteArgument = Annotated[str, typer.Argument(help="a shipped suite's name or a YAML file", show_default=False)]
MethodArgument = Annotated[str, typer.Argument(help="a name from `ditbench list methods`", show_default=False)]
OutOption = Annotated[Path | None, typer.Option(help="the run's folder  \\[default: runs/SUITE]", show_default=False)]
OnlyOption = Annotated[str | None, typer.Option(metavar="GLOB", help="only the cells with such a name")]
DeviceOption = Annotated[str | None, typer.Option(help="cpu or cuda, instead of what the suite says")]
LimitOption = Annotated[int | None, typer.Option(metavar="N", help="at most N samples a quality cell (20 or more)")]
NprocOption = Annotated[
    int, typer.Option(metavar="N", min=1, help="processes that share a cell's sampling, each on a GPU of its own")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="override a config key of the method; repeatable")
]
WeightsOption = Annotated[
    str | None, typer.Option(help="zoo:NAME or a file  \\[default: random weights]", show_default=False)
]
GuidanceOption = Annotated[float, typer.Option(min=0.0, help="classifier-free guidance scale; 1 = none")]
ProtocolOption = Annotated[str, typer.Option(help="a name from `ditbench list protocols`")]
BatchOption = Annotated[int, typer.Option(min=1, help="images a call of the extractor")]
CacheOption = Annotated[Path, typer.Option(metavar="DIR", help="where extracted features are kept, by content")]
JsonOption = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]


@app.command()
def run(
    suite: SuiteArgument,
    out: OutOption = None,
    only: OnlyOption = None,
    device: DeviceOption = None,
    limit: LimitOption = None,
    nproc: NprocOption = 1,
) -> None:
    """Run a suite, or resume it, then write its report. Finished records are never run again."""
    from ditbench.cli.run import run_suite

    raise typer.Exit(run_suite(suite, out, only, device, limit, nproc))


@app.command()
def plan(
    suite: SuiteArgument,
    out: OutOption = None,
    only: OnlyOption = None,
    device: DeviceOption = None,
    limit: LimitOption = None,
    no_timing: Annotated[bool, typer.Option("--no-timing", help="count compute and disk only, time nothing")] = False,
    json: JsonOption = False,
) -> None:
    """Show a suite's cells, what is cached, and what the rest will cost: compute, time, disk. Runs nothing."""
    from ditbench.cli.plan import show_plan

    show_plan(suite, out, only, device, limit, json, not no_timing)


@app.command("list")
def list_(
    kind: Annotated[
        str,
        typer.Argument(
            help="methods, modifiers, samplers, datasets, conditions, metrics, protocols, suites or published",
            show_default=False,
        ),
    ],
    json: JsonOption = False,
) -> None:
    """List what can be named in a suite."""
    from ditbench.cli.listing import show_list

    show_list(kind, json)


@app.command()
def flops(
    method: MethodArgument,
    weights: WeightsOption = None,
    steps: Annotated[int, typer.Option(min=1, max=1000, help="of the sampling grid that the count is over")] = 50,
    guidance: GuidanceOption = 1.0,
    set_: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Count a method: multiply-accumulates of one forward of one sequence, by operator, and parameters."""
    from ditbench.cli.measure import show_flops

    show_flops(method, weights, steps, guidance, set_ or [], json)


@app.command()
def parameters(method: MethodArgument, set_: SetOption = None, json: JsonOption = False) -> None:
    """Count what a method trains, and the memory of its gradients and optimiser, beside full fine-tuning."""
    from ditbench.cli.parameters import show_parameters

    show_parameters(method, set_ or [], json)


@app.command()
def time(
    method: MethodArgument,
    weights: WeightsOption = None,
    against: Annotated[str | None, typer.Option(metavar="METHOD", help="time in turns with this one (A B B A)")] = None,
    batch: Annotated[int, typer.Option(min=1, help="images a call; guidance doubles the sequences")] = 8,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16")] = "float32",
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    threads: Annotated[int, typer.Option(min=0, help="torch threads; 0 = all physical cores")] = 0,
    compiled: Annotated[bool, typer.Option("--compiled", help="torch.compile both methods")] = False,
    steps: Annotated[int, typer.Option(min=1, max=1000, help="steps of the sampling grid")] = 50,
    guidance: GuidanceOption = 1.0,
    loop: Annotated[bool, typer.Option("--loop", help="time the whole DDIM loop too, not only one step")] = False,
    budget: Annotated[float, typer.Option(metavar="SECONDS", help="measuring time a level")] = 20.0,
    set_: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Time one denoiser call of a method, alone or in turns with another one. Random weights: "cost only"."""
    from ditbench.cli.measure import TimeRequest, show_time

    request = TimeRequest(
        method, weights, against, batch, dtype, device, threads, compiled, steps, guidance, loop, budget
    )
    show_time(request, set_ or [], json)


@app.command()
def sample(
    method: MethodArgument,
    weights: Annotated[
        str | None, typer.Option(help="zoo:NAME or a file  \\[default: the zoo's, if it has some]", show_default=False)
    ] = None,
    sampler: Annotated[
        str | None,
        typer.Option(help="a name from `ditbench list samplers`; ddpm, or heun for flows", show_default=False),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    guidance: GuidanceOption = 1.0,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    rows: Annotated[int, typer.Option(min=1, max=20, help="pictures a class")] = 4,
    out: Annotated[Path, typer.Option(help="the PNG to write")] = Path("samples.png"),
    set_: SetOption = None,
) -> None:
    """Draw a grid of samples, one column a class (the first ten)."""
    from ditbench.cli.picture import draw_samples

    draw_samples(method, weights, sampler, steps, guidance, seed, rows, out, set_ or [])


@app.command()
def check(
    method: Annotated[str, typer.Argument(help="NAME, or DISTRIBUTION/NAME of a plugin", show_default=False)],
    set_: SetOption = None,
    weights: WeightsOption = None,
    around: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="MODIFIER", help="put it around, as '{fora: {interval: 3}}'; repeatable"),
    ] = None,
    steps: Annotated[int, typer.Option(min=2, max=1000, help="of the loops that checks run")] = 6,
    json: JsonOption = False,
) -> None:
    """Check that a method keeps the contract, for its author: tells what is wrong, where, and what to do.
    Among others: pieces equal the whole, plan equals ledger, rows and samples do not depend on what is beside them, it
    builds on meta, weights save and load, guidance at 1 equals none, a loop starts with an empty memory, equal keys
    give equal work, units can be wrapped. All checks run, whatever fails; exit code 1 if one did. Random weights are
    drawn such that every layer matters. Take a small size (--set depth=2): it is the code that is checked.
    """
    from ditbench.cli.check import show_check

    raise typer.Exit(show_check(method, set_ or [], weights, around or [], steps, json))


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="a shipped recipe's name or a YAML file", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="folder  \\[default: runs/train/RECIPE]", show_default=False)] = None,
    publish: Annotated[bool, typer.Option("--publish", help="copy the result into the zoo and its manifest")] = False,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    seed: Annotated[
        int | None,
        typer.Option(min=0, max=2**63 - 1, help="in place of the recipe's; names the result RECIPE-sSEED"),
    ] = None,
) -> None:
    """Train weights by a recipe; goes on where it was stopped."""
    from ditbench.cli.training import train_recipe

    train_recipe(recipe, out, publish, device, seed)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="a run's folder", metavar="DIR", show_default=False)],
) -> None:
    """Write the report of a run again from its records."""
    from ditbench.cli.run import report_folder

    report_folder(folder)


@app.command()
def compare(
    a: Annotated[str, typer.Argument(help="a run's folder, or FOLDER:CELL: what is compared with", show_default=False)],
    b: Annotated[str, typer.Argument(help="the same of the candidate", show_default=False)],
    fail_if: Annotated[
        list[str] | None,
        typer.Option("--fail-if", metavar="RULE", help="exit 1 past it: 'frechet>+5%', 'latency_ms>+3%'; repeatable"),
    ] = None,
    metrics: Annotated[str | None, typer.Option(metavar="GLOB", help="only the figures with such a name")] = None,
    json: JsonOption = False,
) -> None:
    """Compare two runs or two cells: differences with intervals, paired on seeds; a gate with --fail-if."""
    from ditbench.cli.compare import show_compare

    raise typer.Exit(show_compare(a, b, fail_if or [], json, metrics))


@app.command()
def score(
    images: Annotated[Path, typer.Argument(help="a folder of PNG files, or an npz with arr_0", show_default=False)],
    protocol: ProtocolOption = "digits",
    reference: Annotated[
        str | None, typer.Option(help="a name in ditbench.toml, an npz, or a folder of images", show_default=False)
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(min=2, help="the first N  \\[default: what the protocol asks]", show_default=False),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    batch: BatchOption = 100,
    cache: CacheOption = Path("runs/features"),
    json: JsonOption = False,
) -> None:
    """Score images that any program made: FID, sFID, inception score, KID, precision, recall, with intervals."""
    from ditbench.cli.scoring import show_score

    show_score(images, protocol, reference, samples, device, batch, cache, json)


@app.command()
def reference(
    source: Annotated[str, typer.Argument(help="a data set, a folder of PNG files, or an npz", show_default=False)],
    out: Annotated[Path, typer.Option(help="the npz to write", show_default=False)],
    protocol: ProtocolOption = "adm",
    samples: Annotated[int | None, typer.Option(min=2, help="the first N images", show_default=False)] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    batch: BatchOption = 100,
    cache: CacheOption = Path("runs/features"),
) -> None:
    """Make reference statistics, which `score` and suites compare with."""
    from ditbench.cli.scoring import make_reference_file

    make_reference_file(source, out, protocol, samples, device, batch, cache)


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="a run's folder", metavar="DIR", show_default=False)],
    cell: Annotated[str, typer.Argument(help="the name of a cell in it", show_default=False)],
    out: Annotated[Path, typer.Argument(help="NAME.npz (ADM's layout), or a folder for PNG files", show_default=False)],
    samples: Annotated[int | None, typer.Option(min=1, help="the first N  \\[default: all scored ones]")] = None,
) -> None:
    """Write a cell's samples to files that other programs score."""
    from ditbench.cli.scoring import export_samples

    export_samples(folder, cell, out, samples)


@app.command()
def doctor(json: JsonOption = False) -> None:
    """List weights and references with their state, where they belong, and which metrics wait for them."""
    from ditbench.cli.doctor import show_doctor

    raise typer.Exit(show_doctor(json))


@app.command()
def selfcheck(json: JsonOption = False) -> None:
    """Verify this installation on vectors that ship with it: schedules, FLOPs, models, metrics, timing."""
    from ditbench.cli.selfcheck import show_selfcheck

    raise typer.Exit(show_selfcheck(json))


@init.command("method")
def init_method(
    name: Annotated[str, typer.Argument(help="of the distribution and of what it registers", show_default=False)],
    kind: Annotated[str, typer.Option(help="static, dynamic, flow, modifier, sampler or metric")] = "static",
    out: Annotated[Path | None, typer.Option(help="folder  \\[default: NAME]", show_default=False)] = None,
) -> None:
    """Write a small distribution that adds a method, a modifier, a sampler or a metric: code, test and suite."""
    from ditbench.cli.init import init_method as write

    write(name, kind, out)


@init.command("suite")
def init_suite(
    name: Annotated[str, typer.Argument(help="of the suite; its file is NAME.yaml", show_default=False)],
    method: Annotated[
        list[str] | None, typer.Option(help="a name from `ditbench list methods`; repeatable", show_default=False)
    ] = None,
    out: Annotated[Path | None, typer.Option(help="folder  \\[default: this one]", show_default=False)] = None,
) -> None:
    """Write a suite with a cell for each method, the first of them the baseline."""
    from ditbench.cli.init import init_suite as write

    write(name, method or [], out)


def _warn_of_plugins() -> None:
    """One line on stderr for each entry point that no group takes: its author meant another one."""
    from ditbench.methods.entries import unknown_groups

    for line in unknown_groups():
        print(f"warning: {line}", file=sys.stderr)


def main() -> None:
    """Entry point: run the verb; bad input becomes one line and exit code 2."""
    _warn_of_plugins()
    try:
        sys.exit(app(sys.argv[1:] or ["--help"], standalone_mode=False))
    except InputError as error:
        print(f"error: {error}" if error.position is None else str(error), file=sys.stderr)
        sys.exit(2)
    except StoreError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("stopped; run the same command again to go on", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        # the parser's own complaints; told by their method, because typer has changed where their class lives
        if not hasattr(error, "format_message"):
            raise
        print(f"error: {' '.join(error.format_message().split())} (see ditbench VERB --help)", file=sys.stderr)
        sys.exit(2)
