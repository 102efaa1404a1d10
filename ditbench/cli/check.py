"""``check``: does a method keep the contract? One line a check; of a fault, what, where, and what mends it."""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import yaml

from ditbench.cli.overrides import parse_overrides
from ditbench.harness.assets.locations import asset_config, weights_path
from ditbench.harness.errors import InputError
from ditbench.methods.entries import UnknownNameError

if TYPE_CHECKING:
    from ditbench.harness.conformance.checks import Result
    from ditbench.harness.conformance.subject import Subject

COLUMNS = 110
MARKS: dict[str, str] = {"ok": "✓", "wrong": "✗", "does not apply": "–", "not tried": "–"}


def show_check(
    method: str, settings: list[str], weights: str | None, around: list[str], steps: int, as_json: bool
) -> int:
    """Run all checks and print them as they end, or all at once as JSON. Returns the exit code: 1 if any failed.

    Raises InputError.
    """
    import torch

    from ditbench.harness.conformance.checks import run

    torch.set_num_threads(1)  # sums in one order
    subject = _subject(method, settings, weights, around, steps)
    if not as_json:
        print("\n".join(textwrap.wrap(f"{_told(subject)}: {weights or 'random weights'}, {steps} steps", COLUMNS)))
    done: list[Result] = []
    for result in run(subject):
        done.append(result)
        if not as_json:
            print("\n".join(lines_of(result)), flush=True)
    if as_json:
        print(json.dumps(document(subject, weights, done), indent=1, ensure_ascii=False))
    else:
        print(closing(subject, done))
    return 1 if any(result.status == "wrong" for result in done) else 0


def lines_of(result: Result) -> list[str]:
    """'✓ name: note'; below a failed one what is wrong, where, and what to do."""
    note = f": {result.outcome.note}" if result.outcome.note else ""
    note = f": not tried{note}" if result.status == "not tried" else note
    lines = textwrap.wrap(f"{MARKS[result.status]} {result.check.name}{note}", COLUMNS, subsequent_indent="    ")
    for fault in result.outcome.faults:
        for word, text in (("what", fault.what), ("where", fault.where), ("do", fault.do or result.check.do)):
            begin = f"    {word:<6}"
            lines += textwrap.wrap(
                text,
                COLUMNS,
                initial_indent=begin,
                subsequent_indent=" " * len(begin),
                break_on_hyphens=False,
                break_long_words=False,
            )
    return lines


def closing(subject: Subject, done: Sequence[Result]) -> str:
    """'dit-testing conforms: 21 ok, 2 do not apply' or '… does not conform: 20 ok, 2 do not apply, 1 wrong'."""
    counts = Counter[str](result.status for result in done)
    word = "does not conform" if counts["wrong"] else "conforms"
    parts = [f"{counts['ok']} ok"]
    if apart := counts["does not apply"]:
        parts.append(f"{apart} do{'es' if apart == 1 else ''} not apply")
    parts += [f"{counts[word]} {word}" for word in ("not tried", "wrong") if counts[word]]
    return f"{subject.method} {word}: {', '.join(parts)}"


def document(subject: Subject, weights: str | None, done: Sequence[Result]) -> dict[str, Any]:
    """What ``--json`` prints: what was checked, how many checks came out how, and every check."""
    counts = Counter[str](result.status for result in done)
    return {
        "method": subject.method,
        "config": subject.config,
        "with": list(subject.around),
        "weights": weights or "random",
        "steps": subject.steps,
        "conforms": counts["wrong"] == 0,
        **{word.replace(" ", "_"): counts[word] for word in MARKS},
        "seconds": round(sum(result.seconds for result in done), 3),
        "checks": [_row(result) for result in done],
    }


def _row(result: Result) -> dict[str, Any]:
    faults = [
        {"what": fault.what, "where": fault.where, "do": fault.do or result.check.do} for fault in result.outcome.faults
    ]
    return {
        "name": result.check.name,
        "status": result.status,
        "note": result.outcome.note,
        "faults": faults,
        "seconds": round(result.seconds, 3),
    }


def _subject(method: str, settings: list[str], weights: str | None, around: list[str], steps: int) -> Subject:
    """Raises InputError for what the user can write otherwise; what is wrong with the method itself, checks tell."""
    from ditbench.harness.conformance.subject import Subject
    from ditbench.methods.errors import CheckpointError, ConfigError
    from ditbench.methods.modifiers import made_modifiers

    config = {**asset_config(weights), **parse_overrides(settings)}
    wanted = [_modifier(text) for text in around]
    path = None if weights is None else weights_path(weights)
    try:
        subject = Subject(method, config, wanted, path, steps)
        made_modifiers(wanted)
    except (UnknownNameError, ConfigError) as error:
        raise InputError(str(error)) from None
    try:
        _ = (subject.facts, subject.model)
    except (ConfigError, CheckpointError) as error:
        raise InputError(f"{method}: {error}") from None
    except TypeError as error:
        if config and "unexpected keyword argument" in str(error):
            raise InputError(f"{method}: {error}") from None
    except Exception:
        return subject
    return subject


def _modifier(text: str) -> Mapping[str, Any]:
    """'{"fora": {"interval": 3}}', or the same in YAML; 'fora' alone takes its defaults. Raises InputError."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = None
    if isinstance(value, str):
        value = {value: {}}
    if not isinstance(value, dict) or len(value) != 1 or not isinstance(next(iter(value.values())), dict | None):
        raise InputError(f"--with {text}: write NAME: {{options}}, as in --with '{{fora: {{interval: 3}}}}'")
    return {str(name): options or {} for name, options in value.items()}


def _told(subject: Subject) -> str:
    settings = "".join(f" {key}={value}" for key, value in subject.config.items())
    return f"check {subject.method}{settings}{''.join(f' with {each}' for each in subject.around)}"
