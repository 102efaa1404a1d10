"""The distribution: one package with all its files, which a run uses whatever lies where it starts."""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest

from ditbench.harness.store.store import RunStore

pytestmark = [pytest.mark.slow, pytest.mark.release]

ROOT = Path(__file__).parent.parent
PARTS = ("methods", "harness", "report", "suites")
TREE = ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "ditbench", *PARTS, "studies", "tests")
RAISES = "raise RuntimeError('a decoy was imported')\n"
BUILD_SOURCES = "from setuptools import build_meta; print(build_meta.build_sdist('.'))"
WHERE = "import ditbench.harness.run.worker as worker; print(worker.__file__)"


def command(*words: object, cwd: Path, **variables: str) -> str:
    """Standard output of a command that must succeed."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    environment = {**inherited, "OMP_NUM_THREADS": "1", **variables}
    done = subprocess.run(list(map(str, words)), cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def copied(to: Path, links: bool) -> Path:
    """The sources without what was built; with ``links`` False, as a file system without links holds them."""
    skipped = shutil.ignore_patterns("__pycache__")
    to.mkdir()
    for name in TREE:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, to / name, symlinks=links, ignore=skipped)
        else:
            shutil.copy(ROOT / name, to / name)
    return to


def wheel_of(source: Path, folder: Path) -> Path:
    words = ("--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", folder, source)
    command(sys.executable, "-m", "pip", "wheel", *words, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


def contents(wheel: Path) -> dict[str, str]:
    """File in a wheel -> its digest."""
    with ZipFile(wheel) as packed:
        return {name: hashlib.sha256(packed.read(name)).hexdigest() for name in packed.namelist() if name[-1] != "/"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    return wheel_of(copied(folder / "tree", links=True), folder)


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The folder of commands of an environment with the wheel and, beside it, what this interpreter has installed."""
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder, symlinks=True)
    words = ("install", "--no-deps", "--no-index", "--disable-pip-version-check", wheel)
    command(sys.executable, "-m", "pip", "--python", folder / "bin" / "python", *words, cwd=folder)
    (library,) = folder.glob("lib/python*/site-packages")
    # The lines of a .pth file are folders whose own .pth files are not read: an editable ditbench there stays unseen.
    here = [entry for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]
    (library / "dependencies.pth").write_text("\n".join(here) + "\n")
    return folder / "bin"


@pytest.fixture
def decoys(tmp_path):
    """A folder where the name of each part means something else."""
    (tmp_path / "methods.py").write_text(RAISES)
    for name in ("harness", "report", "suites"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(RAISES)
    return tmp_path


@pytest.fixture(scope="module")
def alone(installed, tmp_path_factory):
    """What a run in an empty folder records."""
    return figures(installed, tmp_path_factory.mktemp("empty"))


def figures(installed: Path, folder: Path, *words: object, **variables: str) -> dict[str, tuple[str, object]]:
    """Measurement -> its identity, and its values unless a clock gives them."""
    run = ("run", "testing", "--only", "digits-ddim", "--out", "out", *words)
    command(installed / "ditbench", *run, cwd=folder, **variables)
    records = RunStore(folder / "out").cells()["digits-ddim"]
    assert all(record.status == "ok" for record in records.values())
    clocked = "training"
    return {name: (each.identity, None if name == clocked else each.values) for name, each in records.items()}


def test_the_wheel_has_one_top_level_name_and_every_file_of_the_package(wheel):
    found = set(contents(wheel))
    assert {name.split("/")[0] for name in found} == {
        "ditbench",
        wheel.name.removesuffix("-py3-none-any.whl") + ".dist-info",
    }
    files = [file for part in PARTS for file in (ROOT / part).rglob("*") if file.is_file()]
    expected = {f"ditbench/{file.relative_to(ROOT)}" for file in files if "__pycache__" not in file.parts}
    expected |= {str(file.relative_to(ROOT)) for file in (ROOT / "ditbench").glob("*.py")}
    expected |= {str(file.relative_to(ROOT)) for file in (ROOT / "ditbench" / "cli").glob("*.py")}
    templates = {str(file.relative_to(ROOT)) for file in (ROOT / "ditbench" / "templates").rglob("*.in")}
    assert "ditbench/templates/model/src/package/layers.py.in" in templates
    expected |= {*templates, "ditbench/templates/__init__.py"}
    assert {name for name in found if name.startswith("ditbench/")} == expected
    endings = {Path(name).suffix for name in expected}
    assert endings == {".py", ".yaml", ".json", ".safetensors", ".typ", ".in"}, "each kind is there to be forgotten"


def test_sources_without_links_and_their_distribution_make_the_same_wheel(wheel, tmp_path):
    tree = copied(tmp_path / "tree", links=False)
    assert not (tree / "ditbench" / "methods").is_symlink()
    packed = tree / command(sys.executable, "-c", BUILD_SOURCES, cwd=tree).split()[-1]
    with tarfile.open(packed) as sources:
        folders = {Path(each.name).parts[1] for each in sources if len(Path(each.name).parts) > 2}
    assert folders == {"ditbench", "ditbench.egg-info"}
    again, first = contents(wheel_of(packed, tmp_path)), contents(wheel)
    assert {name for name in first.keys() | again.keys() if first.get(name) != again.get(name)} == set()


def test_an_installation_adds_one_top_level_name(installed):
    library = next(installed.parent.glob("lib/python*/site-packages"))
    ours = {file.name for file in library.iterdir() if file.suffix not in (".pth", ".dist-info")}
    assert ours - {"__pycache__"} == {"ditbench"}


def test_names_in_the_working_folder_and_on_the_path_hide_nothing(installed, decoys):
    python, everywhere = installed / "python", {"PYTHONPATH": str(decoys)}
    for variables in ({}, everywhere, {"PYTHONPATH": "."}):
        found = Path(command(python, "-c", WHERE, cwd=decoys, **variables).strip())
        assert found.is_relative_to(installed.parent)
        for words in ((installed / "ditbench",), (python, "-m", "ditbench")):
            assert "ddim" in command(*words, "list", "samplers", cwd=decoys, **variables)


@pytest.mark.parametrize("nproc", [1, 2])
def test_a_run_among_decoys_records_what_a_run_in_an_empty_folder_does(installed, alone, decoys, nproc):
    assert figures(installed, decoys, "--nproc", nproc, PYTHONPATH=str(decoys)) == alone
    assert set(alone) == {"flops", "training", "quality"}


def test_processes_of_a_run_never_take_the_working_folder_for_the_package(installed, alone, decoys):
    (decoys / "ditbench").mkdir()
    (decoys / "ditbench" / "__init__.py").write_text(RAISES)
    assert figures(installed, decoys, "--nproc", 2) == alone
