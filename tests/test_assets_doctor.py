"""Files that the user keeps: their states, and what ``doctor`` says of them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from asset_files import DIGEST, WEIGHTS, asset, configure, empty_folder, reference, sha256

import ditbench.cli.doctor as doctor
from ditbench.cli import main
from ditbench.harness.assets import KNOWN, AssetStatus, load_assets, status
from ditbench.methods.torchvision_shim import ensure_torchvision_importable


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return empty_folder(tmp_path, monkeypatch)


def the_status(name: str) -> AssetStatus:
    return next(each for each in status() if each.name == name)


# status -----------------------------------------------------------------------------------------------


def test_each_state_is_told_with_what_to_do(folder: Path) -> None:
    Path("x.pth").write_bytes(WEIGHTS)
    Path("other.pth").write_bytes(b"other")
    configure(
        asset("x.pth", digest=sha256(WEIGHTS))
        + asset("other.pth", "lpips-vgg16")
        + asset("gone.pth", "lpips-alexnet")
        + reference("other.pth")
        + reference("other.pth", "changed", DIGEST)
    )
    found = {each.name: each for each in status()}
    assert list(found) == [*KNOWN, "mine", "changed"]
    present = AssetStatus(
        "inception-2015", "asset", "present", folder / "x.pth", sha256(WEIGHTS), KNOWN["inception-2015"].waits, ""
    )
    assert found["inception-2015"] == present
    assert {name: (each.state, each.faulty) for name, each in found.items()} == {
        "inception-2015": ("present", False),
        "dinov2-vitl14": ("absent", False),
        "lpips-alexnet": ("absent", True),
        "lpips-vgg16": ("wrong", True),
        "lpips-squeezenet": ("absent", False),
        "imagenet-256": ("absent", False),
        "imagenet-512": ("absent", False),
        "admnet-guided-upsampled-imagenet-256": ("absent", False),
        **{name: ("absent", False) for name, known in KNOWN.items() if known.kind == "weights"},
        "mine": ("unpinned", False),
        "changed": ("wrong", True),
    }
    assert found["mine"].digest == found["changed"].digest == sha256(b"other")
    assert "dinov2_vitl14_pretrain.pth" in found["dinov2-vitl14"].hint
    assert "ditbench.toml:6:9" in found["lpips-alexnet"].hint


def test_a_known_reference_that_is_configured_is_told_once() -> None:
    Path("x.npz").write_bytes(b"other")
    configure(reference("x.npz", "imagenet-256"))
    assert [each.name for each in status()] == list(KNOWN)


def test_what_cannot_be_verified_is_wrong_and_stops_no_other() -> None:
    Path("set").mkdir()
    Path("x.pth").write_bytes(WEIGHTS)
    Path("loop").symlink_to("loop")
    configure(asset("set", "lpips-vgg16") + asset("loop", "lpips-alexnet") + reference("set") + asset("x.pth"))
    found = {each.name: each for each in status()}
    assert found["lpips-vgg16"].state == found["lpips-alexnet"].state == found["mine"].state == "wrong"
    assert found["mine"].hint.endswith("set holds no files")
    assert found["inception-2015"].state == "unpinned"


def test_looking_assets_up_never_imports_torch() -> None:
    Path("x.pth").write_bytes(WEIGHTS)
    configure(reference("x.pth"))
    code = (
        "import sys; from ditbench.harness.assets import load_assets, require, status, verified\n"
        "load_assets(); status(); verified(require('mine', 'a test')); import ditbench.cli.doctor\n"
        "heavy = {'torch', 'numpy', 'scipy', 'torchvision'} & set(sys.modules); assert not heavy, heavy"
    )
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


# doctor -----------------------------------------------------------------------------------------------


@pytest.fixture
def no_software(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = [doctor.Check("torch", "ok", "2.13.0", "x"), doctor.Check("GPU", "missing", "none seen", "device: cuda")]
    monkeypatch.setattr(doctor, "software", lambda: checks)


@pytest.mark.usefixtures("no_software")
def test_doctor_fails_only_for_what_is_configured_and_wrong_or_absent(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.show_doctor(as_json=False) == 0
    assert capsys.readouterr().out.endswith("nothing to mend\n")
    Path("x.pth").write_bytes(WEIGHTS)
    configure(asset("x.pth"))
    assert doctor.show_doctor(as_json=False) == 0
    for text in (asset("gone.pth"), asset("x.pth", digest=DIGEST), asset("x.pth", "dinov2-vitl14")):
        configure(text)
        capsys.readouterr()
        assert doctor.show_doctor(as_json=False) == 1
        assert re.search(r"\nto mend: (inception-2015|dinov2-vitl14)\n$", capsys.readouterr().out)


@pytest.mark.usefixtures("no_software")
def test_doctor_as_json_has_its_documented_fields(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("x.pth").write_bytes(b"other")
    configure(asset("x.pth") + reference("x.pth"))
    monkeypatch.setattr(sys, "argv", ["ditbench", "doctor", "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    answer = json.loads(capsys.readouterr().out)
    assert set(answer) == {"config", "healthy", "assets", "software"}
    assert (answer["config"], answer["healthy"]) == ("ditbench.toml", False)
    fields = {"name", "kind", "state", "path", "digest", "waits", "hint"}
    fields |= {"faulty", "file_name", "published", "licence", "toml"}
    assert all(set(each) == fields for each in answer["assets"])
    rows = {each["name"]: each for each in answer["assets"]}
    assert list(rows) == [*KNOWN, "mine"]
    assert (rows["inception-2015"]["state"], rows["inception-2015"]["faulty"]) == ("wrong", True)
    assert (rows["imagenet-512"]["path"], rows["imagenet-512"]["digest"]) == (None, None)
    assert rows["mine"]["published"] is None and sha256(b"other") in rows["mine"]["toml"]
    assert answer["software"][1] == {
        "name": "GPU", "state": "missing", "detail": "none seen", "waits": "device: cuda"
    }  # fmt: skip


@pytest.mark.usefixtures("no_software")
@pytest.mark.parametrize("columns", [40, 80, 120])
def test_doctor_cuts_no_name_path_or_address(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    long = "a-set-of-pictures-" * 6
    Path("x.npz").write_bytes(b"1")
    configure(reference("x.npz", long) + asset(f"{long}.pth", "dinov2-vitl14") + reference("x.npz", "b", DIGEST))
    doctor.show_doctor(as_json=False)
    out = capsys.readouterr().out
    words = set(out.split())
    for each in status():
        assert each.name in words
        assert each.path is None or str(each.path) in words
    assert all(known.published in out for known in KNOWN.values())
    assert "…" not in out and sha256(b"1") in out


@pytest.mark.usefixtures("no_software")
def test_what_doctor_words_itself_fits_80_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    doctor.show_doctor(as_json=False)
    Path("x.npz").write_bytes(b"1")
    configure(reference("x.npz") + asset("x.npz", "dinov2-vitl14"))
    doctor.show_doctor(as_json=False)
    wordy = [line for line in capsys.readouterr().out.splitlines() if "https://" not in line and "    /" not in line]
    assert len(wordy) > 60 and max(map(len, wordy)) <= 80, max(wordy, key=len)


@pytest.mark.usefixtures("no_software")
def test_the_lines_that_doctor_prints_can_be_pasted(capsys: pytest.CaptureFixture[str]) -> None:
    doctor.show_doctor(as_json=False)
    out = capsys.readouterr().out
    configure(out[out.index("# ") : out.index("nothing to mend")])
    pasted = load_assets()
    entries = {**pasted.assets, **pasted.references}
    assert sorted(entries) == sorted(KNOWN)
    for name, entry in entries.items():
        assert (entry.path.name, entry.sha256 or "") == (KNOWN[name].file_name, KNOWN[name].sha256)


@pytest.mark.usefixtures("no_software")
def test_what_is_configured_already_is_not_to_be_pasted_again(capsys: pytest.CaptureFixture[str]) -> None:
    config = configure(asset("gone.pth")).read_text()
    doctor.show_doctor(as_json=False)
    out = capsys.readouterr().out
    configure(config + out[out.index("\n# ") : out.index("to mend")])
    assert list(load_assets().assets) == [name for name, known in KNOWN.items() if known.table == "assets"]


@pytest.mark.usefixtures("no_software")
def test_the_digest_that_doctor_prints_pins_what_was_unpinned(capsys: pytest.CaptureFixture[str]) -> None:
    name = 'my "own" pictures'
    Path("x.npz").write_bytes(b"other")
    configure(f"[references.'{name}']\npath = 'x.npz'\n")
    assert the_status(name).state == "unpinned"
    doctor.show_doctor(as_json=False)
    lines = re.search(r"(\[references\.\"my .*\])\n(sha256 = .*)\n", capsys.readouterr().out)
    assert lines is not None
    configure(f"{lines[1]}\npath = 'x.npz'\n{lines[2]}\n")
    assert the_status(name).state == "present"


def test_software_is_told_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setenv("CXX", "no-such-compiler")
    found = {check.name: check for check in doctor.software()}
    assert list(found) == [
        *("python", "torch", "torchvision", "diffusers", "fvcore", "typst", "C++ compiler", "GPU", "disk")
    ]
    assert torch.__version__ in found["torch"].detail
    assert found["torchvision"].state == found["fvcore"].state == found["disk"].state == "ok"
    assert ("left out" in found["torchvision"].detail) == ensure_torchvision_importable()
    assert found["GPU"].state == ("ok" if torch.cuda.is_available() else "missing")
    assert found["C++ compiler"] == doctor.Check(
        "C++ compiler", "missing", "no no-such-compiler (another one: CXX)", "mode: compiled"
    )


def test_a_gpu_that_torch_was_not_built_for_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(doctor, "visible_gpu", lambda: {"name": "NVIDIA X", "driver": "1", "memory_mib": 1})
    found = {check.name: check for check in doctor.software()}["GPU"]
    assert (found.state, found.detail) == (
        "missing",
        "NVIDIA X seen by nvidia-smi, not by torch, built for the CPU only",
    )


def test_a_broken_package_is_one_line_and_stops_no_other_check(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(module: str) -> str:
        raise OSError("cannot load\n  libx.so")

    monkeypatch.setattr(doctor, "_importable", broken)
    found = {check.name: check for check in doctor.software()}
    assert (found["fvcore"].state, found["fvcore"].detail) == ("missing", "OSError: cannot load libx.so")
    assert found["torch"].state == "ok"


# The documentation ------------------------------------------------------------------------------------


def test_the_documentation_names_every_known_file_and_its_example_is_valid() -> None:
    text = (Path(__file__).parent.parent / "docs" / "assets.md").read_text()
    for known in KNOWN.values():
        assert f"{known.kind} `{known.name}` | `{known.file_name}`" in text
    example = re.search(r"```toml\n(.*?)```", text, re.DOTALL)
    assert example is not None
    configure(example[1])
    entries = load_assets()
    assert list(entries.assets) == ["inception-2015", "dydit-xl-2-0.7"] and list(entries.references) == ["imagenet-256"]
    assert entries.references["imagenet-256"].sha256 == KNOWN["imagenet-256"].sha256
