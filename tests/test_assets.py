"""Files that the user keeps: lookup, faults with their place, verification, and what ``doctor`` says of them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ditbench import doctor
from ditbench.cli import main
from ditbench.harness.assets import KNOWN, AssetStatus, digest_of, load_assets, require, status, verified
from ditbench.harness.errors import InputError
from ditbench.methods.torchvision_shim import ensure_torchvision_importable

WEIGHTS = b"stand-in for the weights of an extractor"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder and an empty home; Inception's published digest is that of WEIGHTS."""
    for name in ("here", "home"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("DITBENCH_CONFIG", raising=False)
    monkeypatch.setitem(KNOWN, "inception-2015", replace(KNOWN["inception-2015"], sha256=sha256(WEIGHTS)))
    return tmp_path / "here"


def configure(text: str, file: str = "ditbench.toml") -> Path:
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    Path(file).write_text(text)
    return Path(file)


def asset(path: Path | str, name: str = "inception-2015", digest: str | None = None) -> str:
    pinned = f'sha256 = "{digest}"\n' if digest else ""
    return f"[assets.{name}]\npath = '{path}'\n{pinned}"


def reference(path: Path | str, name: str = "mine", digest: str | None = None) -> str:
    return asset(path, name, digest).replace("assets", "references")


def fault(text: str | bytes) -> str:
    Path("ditbench.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError) as caught:
        load_assets()
    return str(caught.value)


def the_status(name: str) -> AssetStatus:
    return next(each for each in status() if each.name == name)


# Which configuration counts ---------------------------------------------------------------------------


def test_without_a_configuration_nothing_is_named_and_nothing_is_wrong() -> None:
    assert load_assets().file is None
    assert all(each.state == "absent" and not each.faulty for each in status())


def test_the_variable_counts_before_the_current_folder_and_that_before_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(reference("x", "from-home"), str(tmp_path / "home/.config/ditbench/ditbench.toml"))
    assert list(load_assets().references) == ["from-home"]
    configure(reference("x", "from-here"))
    assert list(load_assets().references) == ["from-here"]
    configure(reference("x", "from-variable"), str(tmp_path / "else.toml"))
    monkeypatch.setenv("DITBENCH_CONFIG", str(tmp_path / "else.toml"))
    assert list(load_assets().references) == ["from-variable"]
    monkeypatch.setenv("DITBENCH_CONFIG", "")
    assert list(load_assets().references) == ["from-here"]


def test_a_variable_that_names_nothing_is_an_error_and_not_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    configure(reference("x"))
    monkeypatch.setenv("DITBENCH_CONFIG", "nowhere.toml")
    with pytest.raises(InputError, match=r"DITBENCH_CONFIG names nowhere\.toml, which does not exist"):
        load_assets()


def test_a_configuration_that_cannot_be_read_is_not_passed_over(tmp_path: Path) -> None:
    configure(reference("x", "from-home"), str(tmp_path / "home/.config/ditbench/ditbench.toml"))
    Path("ditbench.toml").symlink_to("gone")
    with pytest.raises(InputError, match=r"ditbench\.toml:1:1: cannot be read"):
        load_assets()


def test_paths_are_relative_to_the_configuration_and_a_tilde_is_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = {"beside": "a.npz", "above": "../b", "home": "~/c", "absolute": "/d"}
    configure("".join(reference(path, name) for name, path in paths.items()), "conf/ditbench.toml")
    monkeypatch.setenv("DITBENCH_CONFIG", "conf/ditbench.toml")
    found = load_assets().references
    assert found["beside"].path == tmp_path / "here/conf/a.npz"
    assert found["above"].path == tmp_path / "here/conf/../b"
    assert found["home"].path == tmp_path / "home/c"
    assert found["absolute"].path == Path("/d")


# Faults of the configuration --------------------------------------------------------------------------

DIGEST = "ab" * 32
FAULTS = {
    "unknown table": ('[asset.inception-2015]\npath = "x"\n', "1:2: unknown table 'asset' (did you mean 'assets'?)"),
    "unknown table, nothing near": ("[x]\n", "1:2: unknown table 'x' (known: assets, references)"),
    "unknown table, mentioned twice": ("[x.a]\n[x.b]\n[x]\n", "1:2: unknown table 'x'"),
    "unknown asset": (
        '\n[ assets . inception-2016 ]\npath = "x"\n',
        "2:12: unknown asset 'inception-2016' (did you mean 'inception-2015'?)",
    ),
    "an asset among references": (
        '[references.lpips-vgg16]\npath = "x"\n',
        "1:13: lpips-vgg16 is an asset: write [assets.lpips-vgg16]",
    ),
    "weights among references": (
        '[references.sd-vae-ft-ema]\npath = "x"\n',
        "1:13: sd-vae-ft-ema is weights: write [assets.sd-vae-ft-ema]",
    ),
    "a dot without quotes": (
        '[assets.dydit-xl-2-0.7]\npath = "x"\n',
        '1:9: a name with a dot needs quotes: write [assets."dydit-xl-2-0.7"]',
    ),
    "a shape of what is no model": (
        '[assets.sd-vae-ft-ema]\npath = "x"\nconfig = {depth = 2}\n',
        "3:1: config is for a model's weights, and sd-vae-ft-ema has no method that would read it",
    ),
    "a shape that is no table": (
        '[assets.dit-xl-2-256]\npath = "x"\nconfig = "small"\n',
        "3:10: 'config' must be a table, as in [assets.dit-xl-2-256.config], not text",
    ),
    "a shape of a wrong type": (
        '[assets.dit-xl-2-256]\npath = "x"\n[assets.dit-xl-2-256.config]\ndepth = [2]\n',
        "4:9: depth must be a number, a boolean or text, not a list",
    ),
    "a reference among assets": (
        '[assets.imagenet-256]\npath = "x"\n',
        "1:9: imagenet-256 is a reference: write [references.imagenet-256]",
    ),
    "unknown key": (
        '[references.a]\npath = "x"\n  sha265 = "00"\n',
        "3:3: unknown key 'sha265' in [references.a] (did you mean 'sha256'?)",
    ),
    "no path": (f'[references.a]\nsha256 = "{DIGEST}"\n', "1:13: [references.a] has no path"),
    "empty path": ('[references.a]\npath = ""\n', "2:8: '' is no path"),
    "unknown user": ('[references.a]\npath = "~nobody-at-all/x"\n', "2:8: ~nobody-at-all names no home folder"),
    "path of a wrong type": ("[references.a]\npath = 3\n", "2:8: path must be text in quotes, not a number"),
    "digest of a wrong type": (
        '[references.a]\npath = "x"\nsha256 = 1979-05-27\n',
        "3:10: sha256 must be text in quotes, not a date or a time",
    ),
    "short digest": (
        '[references.a]\npath = "x"\nsha256 = "6726825d"\n',
        "3:10: sha256 must be 64 hexadecimal digits, not 8 characters: '6726825d'",
    ),
    "digest of other letters": (
        f'references.a = {{path = "x", sha256 = "{"g" * 64}"}}\n',
        f"1:38: sha256 must be 64 hexadecimal digits, not 64 characters: '{'g' * 64}'",
    ),
    "a name that is no table": (
        '[assets]\ninception-2015 = "x.pth"\n',
        "2:18: 'inception-2015' must be a table, as in [assets.inception-2015], not text",
    ),
    "a table that is a list": (
        '[[assets]]\npath = "x"\n',
        "1:3: 'assets' must be a table, as in [assets.NAME], not a list",
    ),
    "an unprintable name": ('[references."a\\nb"]\npath = "x"\n', "1:13: 'a\\nb' is no name: printable text is"),
    "unclosed text": ('[references.a]\npath = "x\n', "2:10: not valid TOML: Illegal character '\\n'"),
    "an end too early": ("[references.a]\npath =", "2:7: not valid TOML: Invalid value"),
    "a second mention": (
        '[references.a]\npath = "x"\npath = "y"\n',
        "3:11: not valid TOML: Cannot overwrite a value",
    ),
    "Windows line ends": ('[references.a]\r\npath = "x"\r\nsha = ""\r\n', "3:1: unknown key 'sha' in [references.a]"),
    "a byte order mark": ('\ufeff[asset.a]\npath = "x"\n', "1:2: unknown table 'asset'"),
    "not UTF-8": (b"# \xc3\xa9\n# \xff\n", "2:3: this is not text in UTF-8"),
    "nested deeply": (f"a = {'[' * 20000}", "1:1: nested too deeply"),
    "too large": ("#" * (1 << 20) + "\n", "1:1: too large for ditbench.toml: more than 1,048,576 bytes"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_the_configuration_is_told_with_its_place(name: str) -> None:
    text, expected = FAULTS[name]
    assert fault(text).startswith(f"ditbench.toml:{expected}")


@pytest.mark.parametrize(
    ("before", "line"),
    [
        ('[references.z]\npath = """\n[asset] # "\\"""\n""" # [', 5),
        ("[references.z]\npath = '''[asset]''''", 3),
        ('[references.z]\npath = """[asset]"""" #', 3),
        ('references = {y = {path = \'}#\'}, z.path = "\\"}"}', 2),
        ("[references]\n'y y'.path = \"1\"\nz . path = '2'#", 4),
    ],
)
def test_places_are_right_below_any_spelling_of_what_is_valid(before: str, line: int) -> None:
    assert fault(f'{before}\n\t[ "assets" . nothing ]\n') == fault(f"{before}\n\t[ 'assets' . nothing ]\n")
    assert fault(f'{before}\n\t[ "assets" . nothing ]\n').startswith(f"ditbench.toml:{line}:15: unknown asset")


def test_a_fault_inside_an_inline_table_of_a_list_is_placed_at_the_list() -> None:
    assert fault("references.a.path = [1979-05-27 07:32:00, {x.y = 1}, # ]\n 'b']\n").startswith(
        "ditbench.toml:1:21: path must be text in quotes, not a list"
    )


def test_a_folder_is_no_configuration() -> None:
    Path("ditbench.toml").mkdir()
    with pytest.raises(InputError, match=r"^ditbench\.toml:1:1: this is a folder"):
        load_assets()


# What is published ------------------------------------------------------------------------------------


def test_names_and_digests_are_those_that_the_libraries_download() -> None:
    ensure_torchvision_importable()
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3
    from torchvision.models import AlexNet_Weights, SqueezeNet1_1_Weights, VGG16_Weights

    urls = {
        "inception-2015": URL_INCEPTION_V3,
        "lpips-alexnet": AlexNet_Weights.IMAGENET1K_V1.url,
        "lpips-vgg16": VGG16_Weights.IMAGENET1K_V1.url,
        "lpips-squeezenet": SqueezeNet1_1_Weights.IMAGENET1K_V1.url,
    }
    # the fixture replaces Inception's digest
    published = {**KNOWN, "inception-2015": replace(KNOWN["inception-2015"], sha256="6726825d")}
    for name, url in urls.items():
        known = published[name]
        assert known.published == url
        assert known.file_name == url.rpartition("/")[2]
        assert known.sha256[:8] == re.split(r"[-.]", known.file_name)[-2]


def test_every_known_file_has_what_a_user_must_know() -> None:
    for known in KNOWN.values():
        assert known.published.startswith("https://")
        assert known.published.endswith("/" + known.file_name) or known.kind == "weights", "else the page that names it"
        assert known.summary and known.licence and known.waits
        assert re.fullmatch("[0-9a-f]{64}|", known.sha256)
        assert known.sha256 or known.kind != "asset", "an extractor's weights are pinned"


# require ----------------------------------------------------------------------------------------------


def test_what_is_not_configured_is_asked_for_by_table_and_reason() -> None:
    with pytest.raises(InputError) as caught:
        require("inception-2015", "protocol adm")
    assert str(caught.value).startswith("protocol adm needs the asset inception-2015: the TensorFlow Inception graph")
    assert str(caught.value).endswith("put it into ditbench.toml as [assets.inception-2015] (see `ditbench doctor`)")
    configure(reference("x", "imagenet-64"))
    with pytest.raises(InputError, match=r"the reference imagenet64 \(did you mean 'imagenet-64'\?\); put it into"):
        require("imagenet64", "protocol adm")


def test_what_is_configured_and_not_there_is_told_with_its_place(folder: Path) -> None:
    configure("\n" + asset("gone.pth"))
    expected = f"ditbench.toml:2:9: protocol adm needs the asset inception-2015, but {folder}/gone.pth cannot be read"
    with pytest.raises(InputError, match=f"^{re.escape(expected)}: No such file"):
        require("inception-2015", "protocol adm")


def test_an_asset_is_a_file_and_a_reference_may_be_a_folder(folder: Path) -> None:
    Path("set").mkdir()
    configure(asset("set") + reference("set"))
    with pytest.raises(InputError, match="set is a folder, not a file"):
        require("inception-2015", "protocol adm")
    assert require("mine", "protocol clean").path == folder / "set"


# Digests ----------------------------------------------------------------------------------------------


def test_the_digest_is_that_of_the_content_and_upper_case_is_the_same() -> None:
    Path("x.pth").write_bytes(WEIGHTS)
    for declared in (None, sha256(WEIGHTS), sha256(WEIGHTS).upper()):
        configure(asset("x.pth", digest=declared))
        entry = require("inception-2015", "a test")
        assert verified(entry) == digest_of(entry) == sha256(WEIGHTS)


def test_another_file_than_declared_is_refused_with_both_digests() -> None:
    Path("x.npz").write_bytes(b"other")
    configure(reference("x.npz", digest=DIGEST))
    entry = require("mine", "a test")
    expected = rf"^ditbench\.toml:1:13: mine: .*begins with {sha256(b'other')[:8]}, but .* begins with abababab$"
    with pytest.raises(InputError, match=expected):
        verified(entry)
    assert digest_of(entry) == DIGEST, "identities are made before files are read"


def test_a_slip_in_the_last_digit_of_a_digest_shows() -> None:
    Path("x.npz").write_bytes(b"other")
    slip = sha256(b"other")[:-1] + ("0" if sha256(b"other")[-1] != "0" else "1")
    configure(reference("x.npz", digest=slip))
    with pytest.raises(InputError, match=f"{sha256(b'other')}, but .*{slip}$"):
        verified(require("mine", "a test"))


def test_weights_that_are_not_the_published_ones_are_used_only_where_their_digest_is_declared() -> None:
    Path("x.pth").write_bytes(b"other")
    configure(asset("x.pth"))
    with pytest.raises(InputError, match=r"but that of the published weights-inception.*declare its sha256"):
        verified(require("inception-2015", "a test"))
    configure(asset("x.pth", digest=sha256(b"other")))
    assert verified(require("inception-2015", "a test")) == sha256(b"other")
    (shown,) = [each for each in status() if each.name == "inception-2015"]
    assert shown.state == "present" and "not the published file" in shown.hint


def test_a_reference_may_be_any_file_even_under_a_known_name() -> None:
    Path("x.npz").write_bytes(b"other")
    configure(reference("x.npz", "imagenet-256"))
    assert verified(require("imagenet-256", "a test")) == sha256(b"other")


def test_a_file_that_changed_after_it_was_verified_is_read_again() -> None:
    file = Path("x.pth")
    file.write_bytes(WEIGHTS)
    configure(asset("x.pth"))
    entry = require("inception-2015", "a test")
    verified(entry)
    before = file.stat()
    file.write_bytes(WEIGHTS[::-1])
    # as cp -p does: same place, size and modification time
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(InputError, match=sha256(WEIGHTS[::-1])[:8]):
        verified(entry)


def test_a_file_that_did_not_change_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("x.pth").write_bytes(WEIGHTS)
    configure(asset("x.pth"))
    entry = require("inception-2015", "a test")
    verified(entry)
    monkeypatch.setattr(hashlib, "file_digest", None)
    assert verified(entry) == digest_of(entry) == sha256(WEIGHTS)


def folder_digest(files: dict[str, bytes]) -> str:
    lines = [f"{sha256(data)}  {name}\n".encode() for name, data in files.items()]
    return sha256(b"".join(lines))


def test_the_digest_of_a_folder_is_that_of_its_sorted_names_and_contents() -> None:
    # In the order of the names' bytes: 'B' before 'a', '-' before '/', both before letters.
    files = {"B.png": b"1", "a-b.png": b"2", "a/b.png": b"3", "a/c/d.png": b"", "ab.png": b"1", "é.png": b"5"}
    for name, data in reversed(files.items()):
        Path("set", name).parent.mkdir(parents=True, exist_ok=True)
        Path("set", name).write_bytes(data)
    Path("set/empty").mkdir()
    configure(reference("set"))
    entry = require("mine", "a test")
    assert verified(entry) == folder_digest(files)


def test_a_folder_whose_files_change_or_move_is_another_one() -> None:
    Path("set").mkdir()
    Path("set/a.png").write_bytes(b"1")
    Path("set/b.png").write_bytes(b"2")
    configure(reference("set"))
    entry = require("mine", "a test")
    seen = {verified(entry)}
    Path("set/b.png").rename("set/c.png")
    seen.add(verified(entry))
    Path("set/c.png").write_bytes(b"3")
    seen.add(verified(entry))
    Path("set/d.png").touch()
    seen.add(verified(entry))
    assert len(seen) == 4


def test_a_folder_that_cannot_be_read_in_full_has_no_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("set/locked").mkdir(parents=True)
    Path("set/a.png").write_bytes(b"1")
    configure(reference("set"))
    scandir = os.scandir

    def locked(path: str) -> object:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", locked)
    with pytest.raises(InputError, match="set/locked cannot be read: Permission denied"):
        verified(require("mine", "a test"))


def test_links_to_files_count_as_files_and_links_to_folders_are_refused() -> None:
    Path("set").mkdir()
    Path("elsewhere").mkdir()
    Path("elsewhere/a.png").write_bytes(b"1")
    Path("set/a.png").symlink_to("../elsewhere/a.png")
    configure(reference("set"))
    entry = require("mine", "a test")
    assert verified(entry) == folder_digest({"a.png": b"1"})
    Path("set/more").symlink_to("../elsewhere")
    with pytest.raises(InputError, match="set/more is a link to a folder"):
        verified(entry)


def test_what_is_no_content_is_refused() -> None:
    Path("set").mkdir()
    os.mkfifo("pipe")
    configure(reference("set") + reference("pipe", "pipe"))
    with pytest.raises(InputError, match="set holds no files"):
        verified(require("mine", "a test"))
    with pytest.raises(InputError, match="pipe is not a regular file"):
        verified(require("pipe", "a test"))


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
        "load_assets(); status(); verified(require('mine', 'a test')); import ditbench.doctor\n"
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
