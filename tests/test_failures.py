"""What breaks from outside: full disks, damaged files, kills. One line says so, and nothing finished is lost."""

import errno
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from commands import environment
from safetensors.torch import save_file

from ditbench import methods
from ditbench.harness.errors import InputError, StoreError
from ditbench.harness.run.runner import check_inputs
from ditbench.harness.sample.generate import bind
from ditbench.harness.sample.launch import make_in_ranks
from ditbench.harness.sample.making import make_pieces
from ditbench.harness.sample.order import Order, check_whole
from ditbench.harness.sample.picture_decoder import bind_decoder
from ditbench.harness.sample.shards import Shard, write_shard
from ditbench.harness.store.failures import FailedError, failure_of
from ditbench.harness.store.records import CellSpec, DecoderSpec
from ditbench.harness.store.store import remove_temporary, write_atomic
from ditbench.harness.suite.load import load_suite
from ditbench.harness.suite.plan import make_plan
from ditbench.methods.latent.autoencoder import make_autoencoder_files

# A disk that takes nothing more ------------------------------------------------------------------------


def refusing(code: int):
    def refuse(_handle: int) -> None:
        raise OSError(code, os.strerror(code))

    return refuse


@pytest.mark.parametrize(
    ("code", "words", "kind"),
    [
        (errno.ENOSPC, r"no space is left for .*file.npz: it needs 2\.0 MiB, and [\d,.]+ [MK]iB are free", "disk-full"),
        (errno.EDQUOT, r"the disk quota is used up, and .*file.npz needs 2\.0 MiB; .*free some space", "disk-full"),
        (errno.EIO, r"file.npz cannot be written \(Input/output error\)", "error"),
        (errno.EROFS, r"file.npz cannot be written \(Read-only file system\)", "error"),
    ],
)  # fmt: skip
def test_a_failed_write_names_the_file_and_leaves_nothing(tmp_path, monkeypatch, code, words, kind):
    monkeypatch.setattr(os, "fsync", refusing(code))
    with pytest.raises(StoreError, match=words) as caught:
        write_atomic(tmp_path / "new" / "file.npz", bytes(2 << 20))
    assert failure_of(caught.value).kind == kind
    assert "\n" not in str(caught.value) and "run the same command again" in str(caught.value)
    assert list((tmp_path / "new").iterdir()) == []


def test_what_a_killed_writer_left_is_removed_and_nothing_else(tmp_path):
    (tmp_path / "samples" / "0123").mkdir(parents=True)
    kept = [tmp_path / "samples" / "0123" / "shard-0.npz", tmp_path / "notes.tmp", tmp_path / ".lock"]
    left = tmp_path / "samples" / "0123" / ".shard-1.npz.k2j3.tmp"
    for path in (*kept, left):
        path.touch()
    remove_temporary(tmp_path)
    assert not left.exists() and all(path.exists() for path in kept)


FULL_DISK = """
import sys
from pathlib import Path
from ditbench.harness.errors import StoreError
from ditbench.harness.store.store import write_atomic
folder = Path(sys.argv[1])
for number in range(3):
    write_atomic(folder / f"{number}.npz", bytes(256 << 10))
try:
    write_atomic(folder / "3.npz", bytes(512 << 10))
except StoreError as error:
    print(error)
print(sorted(path.name for path in folder.iterdir()), [path.stat().st_size >> 10 for path in folder.iterdir()])
write_atomic(folder / "record.json", b"small")
"""


def test_a_disk_that_is_really_full(tmp_path):
    mounted = 'mount -t tmpfs -o size=1m none "$1" && exec "$2" -c "$3" "$1"'
    command = ["unshare", "-rm", "sh", "-c", mounted, "sh", str(tmp_path), sys.executable, FULL_DISK]
    try:
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False, timeout=60)
    except FileNotFoundError:
        pytest.skip("no unshare")
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip(f"a file system cannot be mounted here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    said, listed = done.stdout.splitlines()
    assert said.startswith(f"no space is left for {tmp_path}/3.npz: it needs 512 KiB, and 256 KiB are free")
    assert listed == "['0.npz', '1.npz', '2.npz'] [256, 256, 256]"


SUITE = """
suite: failing
threads: 1
defaults: {method: dit-testing, sampler: ddim, steps: 2, measure: [flops]}
cells:
  - {name: one}
  - {name: two, steps: 3}
"""
# The run's process finds its disk full at the record of the second cell.
NO_SPACE = """
import errno, os, sys
from ditbench.cli import main
from ditbench.harness.store.store import RunStore
commit = RunStore.commit
def full(store, record):
    if record.spec.cell == "two":
        def refuse(handle): raise OSError(errno.ENOSPC, "No space left on device")
        os.fsync = refuse
    commit(store, record)
if sys.argv.pop(1) == "full":
    RunStore.commit = full
main()
"""


@pytest.mark.slow
def test_a_disk_that_fills_up_stops_the_run_in_one_line_and_the_next_run_goes_on(tmp_path):
    (tmp_path / "failing.yaml").write_text(SUITE)
    done = run_patched("full", tmp_path)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: no space is left for out/records/") and "Traceback" not in done.stderr
    (first,) = (tmp_path / "out" / "records").iterdir()
    before = first.stat().st_mtime_ns
    done = run_patched("mended", tmp_path)
    assert done.returncode == 0 and "1 measured, 1 reused" in done.stdout, done.stderr
    assert first.stat().st_mtime_ns == before and len(list((tmp_path / "out" / "records").iterdir())) == 2


def run_patched(how: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", NO_SPACE, how, "run", "failing.yaml", "--out", "out"]
    return subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, check=False, timeout=300
    )


# Checkpoints -------------------------------------------------------------------------------------------

CHECKPOINTS = """
suite: checkpoints
cells:
  - name: broken
    method: dit-testing
    weights: {weights}
    steps: 2
    measure: [flops]
"""


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def of_another_model(path: Path) -> None:
    save_file(methods.build("dit-testing", hidden_size=48).state_dict(), path)


def unreadable(path: Path) -> None:
    path.chmod(0)


def out_of_reach(path: Path) -> None:
    path.parent.chmod(0)


def into_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("name", "harm", "words"),
    [
        ("weights.safetensors", truncated, "not a safetensors file"),
        ("weights.pt", truncated, "not a readable checkpoint"),
        ("weights.safetensors", of_another_model, "does not fit dit-testing: .* another shape"),
        ("weights.safetensors", into_a_folder, "this is a folder"),
        ("weights.safetensors", Path.unlink, "no such"),
    ],
)
def test_a_bad_checkpoint_is_named_with_its_place_in_the_suite_before_anything_runs(tmp_path, name, harm, words):
    state = methods.build("dit-testing").state_dict()
    path = tmp_path / name
    if path.suffix == ".pt":
        torch.save(state, path)
    else:
        save_file(state, path)
    (tmp_path / "suite.yaml").write_text(CHECKPOINTS.format(weights=name))

    def planned():
        from ditbench.harness.suite.refusal import refuse_waiting

        plan = make_plan(load_suite(str(tmp_path / "suite.yaml")))
        refuse_waiting(plan)
        check_inputs(plan, {"broken": list(plan.cells[0].measurements)})

    planned()
    harm(path)
    with pytest.raises(InputError, match=words) as caught:
        planned()
    assert str(caught.value).startswith(f"{tmp_path}/suite.yaml:6:14: ")


@pytest.mark.parametrize("harm", [unreadable, out_of_reach])
def test_weights_that_may_not_be_read_are_named(harm):
    with tempfile.TemporaryDirectory() as name:  # not tmp_path, which lies where only its owner may enter
        suite, path = Path(name, "suite.yaml"), Path(name, "kept", "weights.safetensors")
        path.parent.mkdir()
        path.write_bytes(b"weights")
        suite.write_text(CHECKPOINTS.format(weights="kept/weights.safetensors"))
        Path(name).chmod(0o755)
        loaded = load_suite(str(suite))
        make_plan(loaded)  # all imports happen now: root's Python may lie where nobody else may read
        harm(path)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)  # root may read every file
        try:
            with pytest.raises(InputError, match=r"yaml:6:14: .*weights.safetensors cannot be read: Permission denied"):
                make_plan(loaded)
        finally:
            os.seteuid(user)
            path.parent.chmod(0o755)


def test_a_bad_decoder_is_named_with_its_place_in_the_suite_before_anything_runs(tmp_path):
    folder = make_autoencoder_files(tmp_path / "autoencoder", seed=1)
    text = CHECKPOINTS.replace("    weights: {weights}\n", "    config: {in_channels: 4}\n    decoder: autoencoder\n")
    (tmp_path / "suite.yaml").write_text(text)

    def planned() -> None:
        plan = make_plan(load_suite(str(tmp_path / "suite.yaml")))
        check_inputs(plan, {"broken": list(plan.cells[0].measurements)})

    planned()
    (tmp_path / "suite.yaml").write_text(text.replace("in_channels: 4", "in_channels: 16"))
    with pytest.raises(InputError, match=r"takes latents of 4 channels, and dit-\w+ makes 16") as caught:
        planned()
    assert str(caught.value).startswith(f"{tmp_path}/suite.yaml:7:14: ")
    (tmp_path / "suite.yaml").write_text(text)
    for harm, words in ((truncated, "not a safetensors file"), (of_another_model, "is not the AutoencoderKL")):
        harm(folder / "diffusion_pytorch_model.safetensors")
        with pytest.raises(InputError, match=words) as caught:
            planned()
        assert str(caught.value).startswith(f"{tmp_path}/suite.yaml:7:14: ")


# Shards and pictures -----------------------------------------------------------------------------------


def ordered(folder: Path, decoder: Path | None = None) -> Order:
    spec = CellSpec(
        cell="latents",
        method="dit-testing",
        config={"in_channels": 4},
        sampler="ddim",
        steps=2,
        threads=1,
        decoder=None if decoder is None else DecoderSpec(weights=str(decoder)),
    )
    return Order(spec=spec, weights=None, decoder_weights=decoder, folders=(folder / "block",), samples=24, shard=4)


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)


def of_another_size(path: Path) -> None:
    write_shard(path, Shard(np.zeros((3, 4, 8, 8), np.float32), np.zeros(3, np.int64)))


@pytest.mark.parametrize("harm", [truncated, flip_a_byte, of_another_size])
def test_a_damaged_shard_is_named_before_anything_is_made_of_it(tmp_path, harm):
    order = ordered(tmp_path)
    pieces = order.pieces()
    for piece in pieces[:3]:
        write_shard(piece.shard, Shard(np.zeros((4, 4, 8, 8), np.float32), np.zeros(4, np.int64)))
    check_whole(pieces)
    harm(pieces[1].shard)
    with pytest.raises(InputError, match=r"shard-0000004-0000008.npz.*delete the file and run the suite again"):
        check_whole(pieces)
    pieces[1].shard.unlink()
    check_whole(pieces)


def test_a_kill_while_decoding_loses_no_finished_picture_and_changes_none(tmp_path):
    source = make_autoencoder_files(tmp_path / "autoencoder", seed=1, block_out_channels=(32, 32, 32, 32))
    undisturbed, disturbed = ordered(tmp_path / "undisturbed", source), ordered(tmp_path / "disturbed", source)
    make(undisturbed)
    failures = []

    def run_ranks() -> None:
        try:
            make_in_ranks(disturbed, 1, tmp_path / "order.json", lambda _done, _total: None)
        except FailedError as error:
            failures.append(error.failure.message)

    running = threading.Thread(target=run_ranks)
    running.start()
    while disturbed.made()[0] < 7 and running.is_alive():  # six shards and a picture
        time.sleep(0.002)
    for process in psutil.Process().children(recursive=True):
        if "ditbench.harness.sample.ranks" in process.cmdline():
            process.kill()
    running.join(60)
    assert failures and failures[0].startswith("rank 0 of 1 was ended by SIGKILL"), "it was over before the kill"
    kept = {file: file.stat().st_mtime_ns for file in (tmp_path / "disturbed").rglob("shard*.npz")}
    assert 7 <= len(kept) < 12
    make(disturbed)
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    for one, other in zip(disturbed.pieces(), undisturbed.pieces(), strict=True):
        assert [file.read_bytes() for file in one.files] == [file.read_bytes() for file in other.files]


def make(order: Order) -> None:
    pieces, decoder = order.pieces(), order.spec.decoder
    assert decoder is not None
    missing = [pieces[number] for number in order.missing()]
    bound = bind(order.spec, order.weights)
    make_pieces(missing, lambda: bound, lambda: bind_decoder(decoder, order.decoder_weights, "cpu"), lambda: None)
