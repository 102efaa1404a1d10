"""Files that the user keeps: only what is published or declared is used, by its digest."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from asset_files import DIGEST, WEIGHTS, asset, configure, empty_folder, reference, sha256

from ditbench.harness.assets import KNOWN, digest_of, require, status, verified
from ditbench.harness.errors import InputError
from ditbench.methods.torchvision_shim import ensure_torchvision_importable


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return empty_folder(tmp_path, monkeypatch)


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
