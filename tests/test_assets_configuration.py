"""Files that the user keeps: which configuration counts, and its faults with their place."""

from __future__ import annotations

from pathlib import Path

import pytest
from asset_files import DIGEST, configure, empty_folder, reference

from ditbench.harness.assets import load_assets, status
from ditbench.harness.errors import InputError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return empty_folder(tmp_path, monkeypatch)


def fault(text: str | bytes) -> str:
    Path("ditbench.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError) as caught:
        load_assets()
    return str(caught.value)


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
