"""Sampling in several processes: the world's size changes no bit, and a lost process loses no finished shard."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
import torch
from commands import ditbench, environment, start

from ditbench.cli.run import run_suite
from ditbench.harness.assets.locations import weights_path
from ditbench.harness.errors import InputError
from ditbench.harness.run.runner import check_processes
from ditbench.harness.sample.generate import bind
from ditbench.harness.sample.launch import make_in_ranks
from ditbench.harness.sample.making import make_pieces
from ditbench.harness.sample.order import Order
from ditbench.harness.sample.ranks import read_order
from ditbench.harness.store.failures import FailedError
from ditbench.harness.store.records import CellSpec
from ditbench.harness.suite.load import load_suite
from ditbench.harness.suite.plan import make_plan


def ordered(folder: Path, **changes: object) -> Order:
    spec = CellSpec(
        cell="ranks", method="dit-digits", sampler="ddim", sampler_options={"clip": True}, steps=80, threads=2
    )
    return Order(
        spec=spec.model_copy(update=changes),
        weights=weights_path("zoo:dit-digits"),
        decoder_weights=None,
        folders=(folder / "first", folder / "second"),
        samples=30,
        shard=10,
    )


def contents(order: Order) -> list[bytes]:
    return [file.read_bytes() for piece in order.pieces() for file in piece.files]


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> list[bytes]:
    """The files that one process makes, of as many threads as each rank has."""
    order = ordered(tmp_path_factory.mktemp("alone"))
    bound = bind(order.spec, order.weights)
    before = torch.get_num_threads()
    torch.set_num_threads(order.spec.threads)
    make_pieces(order.pieces(), lambda: bound, lambda: pytest.fail("nothing to decode"), lambda: None)
    torch.set_num_threads(before)
    return contents(order)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_a_world_of_any_size_makes_the_files_that_one_process_makes(alone, tmp_path, world):
    order = ordered(tmp_path)
    seen = []
    make_in_ranks(order, world, tmp_path / "order.json", lambda done, total: seen.append((done, total)))
    assert seen[-1] == (6, 6) and seen == sorted(seen)
    assert contents(order) == alone


def test_ranks_never_take_the_working_folder_for_the_package(alone, tmp_path, monkeypatch):
    (tmp_path / "ditbench").mkdir()
    (tmp_path / "ditbench" / "__init__.py").write_text("raise RuntimeError('a decoy was imported')\n")
    monkeypatch.chdir(tmp_path)
    order = ordered(tmp_path)
    make_in_ranks(order, 2, tmp_path / "order.json", lambda _done, _total: None)
    assert contents(order) == alone


def test_a_killed_rank_loses_no_finished_shard_and_another_world_ends_the_work(alone, tmp_path):
    order, failures = ordered(tmp_path), []

    def run_ranks():
        try:
            make_in_ranks(order, 3, tmp_path / "order.json", lambda _done, _total: None)
        except FailedError as error:
            failures.append(error.failure)

    running = threading.Thread(target=run_ranks)
    running.start()
    while order.made()[0] < 1 and running.is_alive():
        time.sleep(0.01)
    victim = next(rank for rank in ranks_of(psutil.Process()) if rank.environ().get("RANK") == "1")
    others = [rank for rank in ranks_of(psutil.Process()) if rank != victim]
    victim.kill()
    running.join(60)
    assert [failure.kind for failure in failures] == ["out-of-memory"], "it was over before the kill"
    assert failures[0].message.startswith("rank 1 of 3 was ended by SIGKILL")
    assert "of 6 files of samples are made; run again to go on" in failures[0].message
    assert not psutil.wait_procs(others, timeout=10)[1], "the other ranks end with it"
    kept = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("shard*.npz")}
    assert 0 < len(kept) < 6
    make_in_ranks(order, 2, tmp_path / "order.json", lambda _done, _total: None)
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    assert contents(order) == alone


def ranks_of(process: psutil.Process) -> list[psutil.Process]:
    found = []
    for child in process.children(recursive=True):
        try:
            if "ditbench.harness.sample.ranks" in child.cmdline():
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found


def test_a_rank_that_raises_says_which_and_why(tmp_path):
    order = ordered(tmp_path, guidance_scale=1e38, sampler_options={})
    with pytest.raises(FailedError) as caught:
        make_in_ranks(order, 2, tmp_path / "order.json", lambda _done, _total: None)
    failure = caught.value.failure
    assert failure.kind == "not-finite" and "NotFiniteError" in failure.traceback
    assert failure.message.startswith(("rank 0 of 2: ", "rank 1 of 2: ")) and "NaN or infinite" in failure.message
    assert not list(tmp_path.rglob("shard*")), "nothing that is not finite is written"


def test_pieces_are_shared_out_whole_and_once(tmp_path):
    order = ordered(tmp_path)
    (tmp_path / "second").mkdir()
    pieces = order.pieces()
    pieces[4].shard.touch()
    missing = order.missing()
    assert missing == [0, 1, 2, 3, 5]
    for world in (1, 2, 3, 7):
        shares = [missing[rank::world] for rank in range(world)]
        assert sorted(number for share in shares for number in share) == missing
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert [piece.spec.seed for piece in pieces] == [0, 0, 0, 1, 1, 1]


SUITE = """
suite: ranks
threads: 1
defaults: {method: dit-digits, weights: zoo:dit-digits, dataset: digits, measure: [quality], sampler: {name: ddim}}
cells:
  - {name: quick, steps: 2}
  - {name: long, steps: 500, timeout_s: %s}
quality: {samples: %s, shard: 10}
"""


@pytest.mark.slow
def test_runs_of_one_process_of_three_and_under_torchrun_have_the_same_records(tmp_path):
    (tmp_path / "ranks.yaml").write_text(SUITE % (600, 40))
    arguments = ["run", "ranks.yaml", "--only", "quick", "--out"]
    for nproc in (1, 3):
        done = ditbench(*arguments, f"out-{nproc}", "--nproc", nproc, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert torchrun(2, "-m", "ditbench", *arguments, "torchrun", cwd=tmp_path).returncode == 0
    assert [(tmp_path / out / "logs" / "quick.order.json").is_file() for out in ("out-1", "out-3")] == [False, True]
    found = []
    for out in ("out-1", "out-3", "torchrun"):
        (record,) = (tmp_path / out / "records").glob("*.json")
        loaded = json.loads(record.read_text())
        found.append((record.name, loaded["values"], loaded["detail"]))
    assert found[0][1]["frechet"]["value"] > 0
    assert found[1] == found[0] and found[2] == found[0]
    # The order of a run is a file that torchrun takes by itself.
    shards = sorted((tmp_path / "out-3").rglob("shard*.npz"))
    before = [shard.read_bytes() for shard in shards]
    for shard in shards[1:]:
        shard.unlink()
    order = tmp_path / "out-3" / "logs" / "quick.order.json"
    assert torchrun(2, "-m", "ditbench.harness.sample.ranks", order, cwd=tmp_path).returncode == 0
    assert [shard.read_bytes() for shard in shards] == before


def torchrun(nproc: int, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={nproc}"]
    command = [*launcher, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.slow
def test_a_time_limit_and_a_kill_of_the_run_end_all_ranks(tmp_path):
    (tmp_path / "ranks.yaml").write_text(SUITE % (25, 4000))
    process = start("run", "ranks.yaml", "--out", "out", "--only", "long", "--nproc", "2", cwd=tmp_path)
    run = psutil.Process(process.pid)
    try:
        ranks = wait_for_ranks(run)
        assert not psutil.wait_procs(ranks, timeout=40)[1], "the limit ends them"
        assert process.wait(60) == 1
    finally:
        process.kill()
    (failed,) = (tmp_path / "out" / "failures").glob("*.json")
    assert json.loads(failed.read_text())["failure"]["kind"] == "timeout"

    process = start("run", "ranks.yaml", "--out", "out", "--only", "long", "--nproc", "2", cwd=tmp_path)
    ranks = wait_for_ranks(psutil.Process(process.pid))
    process.kill()
    process.wait()
    assert not psutil.wait_procs(ranks, timeout=10)[1], "a killed run's ranks go with it"


def wait_for_ranks(run: psutil.Process) -> list[psutil.Process]:
    while len(ranks := ranks_of(run)) < 2:
        assert run.is_running() and run.status() != psutil.STATUS_ZOMBIE, "it ended, and no ranks were seen"
        time.sleep(0.1)
    return ranks


def test_more_processes_than_gpus_and_less_than_one_are_refused(tmp_path, monkeypatch):
    (tmp_path / "ranks.yaml").write_text(SUITE % (600, 40))
    done = ditbench("run", "ranks.yaml", "--nproc", "0", cwd=tmp_path)
    assert done.returncode == 2 and "--nproc" in done.stderr and "Traceback" not in done.stderr
    plan = make_plan(load_suite(str(tmp_path / "ranks.yaml")), device="cuda")
    missing = {"quick": ["quality"]}
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_processes(plan, missing, 2)
    with pytest.raises(InputError, match=r"--nproc 3: .* this machine shows 2"):
        check_processes(plan, missing, 3)
    check_processes(plan, {}, 3)
    check_processes(make_plan(load_suite(str(tmp_path / "ranks.yaml"))), missing, 3)


def test_a_run_under_torchrun_takes_no_number_of_processes(tmp_path, monkeypatch):
    (tmp_path / "ranks.yaml").write_text(SUITE % (600, 40))
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="--nproc is for a run that torchrun has not started"):
        run_suite(str(tmp_path / "ranks.yaml"), tmp_path / "out", None, None, None, 2)
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_no_order_is_named(tmp_path):
    (tmp_path / "order.json").write_text("{}")
    with pytest.raises(InputError, match=r"order\.json is not an order of samples"):
        read_order(tmp_path / "order.json")
    with pytest.raises(InputError, match="is not an order of samples"):
        read_order(tmp_path / "absent.json")
