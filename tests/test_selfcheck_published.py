"""The self-check: the published figures of ADM are held where the public files are there."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import math
from pathlib import Path

import pytest

from ditbench.harness import assets
from ditbench.harness.errors import InputError
from ditbench.harness.selfcheck import checks, metric_checks
from ditbench.harness.selfcheck.checks import Check
from ditbench.harness.store.records import Quantity

ADM = {"frechet": 3.9426, "sfid": 6.1404, "inception_score": 215.84, "precision": 0.8265, "recall": 0.5309}


@pytest.fixture
def public_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration that names the three public files; their content is made up, and known digests are waived."""
    lines = []
    for table, name in (
        ("assets", metric_checks.INCEPTION),
        ("references", metric_checks.REFERENCE),
        ("references", metric_checks.SAMPLES),
    ):
        path = tmp_path / f"{name}.bin"
        path.write_bytes(name.encode())
        lines += [f"[{table}.{name}]", f'path = "{path}"', f'sha256 = "{hashlib.sha256(name.encode()).hexdigest()}"']
    (tmp_path / "ditbench.toml").write_text("\n".join(lines))
    monkeypatch.setenv("DITBENCH_CONFIG", str(tmp_path / "ditbench.toml"))
    known = assets.KNOWN[metric_checks.INCEPTION]
    monkeypatch.setitem(assets.KNOWN, metric_checks.INCEPTION, dataclasses.replace(known, sha256=""))
    return tmp_path


def scored(figures: object, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Check], list[Path]]:
    """The group's checks when scoring gives ``figures``, or raises them, and for which files it was asked."""
    asked: list[Path] = []

    def score(samples: Path):
        asked.append(samples)
        if isinstance(figures, Exception):
            raise figures
        return figures

    monkeypatch.setattr(metric_checks, "published_adm", score)
    return {check.name: check for check in checks.run("published figures")}, asked


def test_the_published_figures_pass_and_the_images_are_scored_once(public_files, monkeypatch) -> None:
    found, asked = scored(ADM, monkeypatch)
    assert [check.status for check in found.values()] == ["ok"] * 6
    assert asked == [public_files / f"{metric_checks.SAMPLES}.bin"]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("frechet", 3.9526, "FID 3.9426"),
        ("sfid", 6.16, "sFID 6.1404"),
        ("inception_score", 215.5, "inception score 215.84"),
        ("precision", 0.838, "precision 0.8265"),
        ("recall", 0.52, "recall 0.5309"),
        ("recall", math.nan, "recall 0.5309"),
    ],
)
def test_a_figure_away_from_the_published_one_fails_alone(name, value, expected, public_files, monkeypatch) -> None:
    found, _ = scored(ADM | {name: value}, monkeypatch)
    assert {n for n, check in found.items() if check.status == "failed"} == {expected}


def test_a_figure_that_scoring_does_not_give_fails(public_files, monkeypatch) -> None:
    found, _ = scored({name: value for name, value in ADM.items() if name != "sfid"}, monkeypatch)
    assert {n for n, check in found.items() if check.status == "failed"} == {"sFID 6.1404"}


def test_scoring_that_fails_is_not_tried_again(public_files, monkeypatch) -> None:
    found, asked = scored(InputError("the reference has no images"), monkeypatch)
    wrong = [check for check in found.values() if check.status == "failed"]
    assert len(wrong) == 5 and len(asked) == 1
    assert all("the reference has no images" in check.measured for check in wrong)


def test_changed_public_files_fail(public_files, monkeypatch) -> None:
    (public_files / f"{metric_checks.SAMPLES}.bin").write_bytes(b"other")
    found, _ = scored(ADM, monkeypatch)
    assert found["digests of the public files"].status == "failed"


def test_what_is_missing_for_the_published_figures_is_named(public_files, monkeypatch) -> None:
    text = (public_files / "ditbench.toml").read_text()
    (public_files / "ditbench.toml").write_text(text[: text.index(f"[references.{metric_checks.SAMPLES}]")])
    found, asked = scored(ADM, monkeypatch)
    (only,) = found.values()
    assert only.status == "skipped" and only.reason == "needs public files" and not asked
    assert only.note.startswith(f"needs {metric_checks.SAMPLES} in ditbench.toml")


def test_scoring_is_asked_for_what_adm_published(monkeypatch) -> None:
    """The real call's arguments and the names of its figures."""
    import ditbench.harness.quality.score as score

    calls = []

    def fake(path: Path, protocol_name: str, reference: str | None, **options: object):
        calls.append((path, protocol_name, reference))
        inspect.signature(score_images).bind(path, protocol_name, reference, **options)
        values = {name: Quantity(value=value, unit="1", interval="none") for name, value in ADM.items()}
        return score.FileScore("x", 50_000, "adm", values, {}, {})

    score_images = score.score_images
    monkeypatch.setattr(score, "score_images", fake)
    assert metric_checks.published_adm(Path("x.npz")) == ADM
    assert calls == [(Path("x.npz"), "adm", "imagenet-256")]
