"""``selfcheck``: does this installation, on this machine, give the numbers that it must give? One line a check."""

from __future__ import annotations

import json
import math
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ditbench.harness.environment import versions

if TYPE_CHECKING:
    from ditbench.harness.selfcheck.checks import Check

COLUMNS = 80
SHOWN_VERSIONS = ("torch", "numpy", "scipy", "fvcore")
SHOWN_ENTRIES = 4


def show_selfcheck(as_json: bool) -> int:
    """Run all checks and print them as they end, or all at once as JSON. Returns the exit code: 1 if any failed."""
    from ditbench.harness.selfcheck.checks import GROUPS, run

    installed = versions()
    if not as_json:
        shown = ", ".join(f"{name} {installed[name]}" for name in SHOWN_VERSIONS if name in installed)
        print("\n".join(textwrap.wrap(f"ditbench {installed.get('ditbench', '')} with {shown}", COLUMNS)))
    _take_one_thread()
    done: list[Check] = []
    for group in GROUPS:
        if not as_json:
            print(group, flush=True)
        for check in run(group):
            if not as_json:
                print("\n".join(lines_of(check)), flush=True)
            done.append(check)
    counts = Counter(check.status for check in done)
    if as_json:
        print(json.dumps(document(done), indent=1, ensure_ascii=False, allow_nan=False))
    else:
        print(closing(done))
    return 1 if counts["failed"] else 0


def lines_of(check: Check) -> list[str]:
    """One line, at most 80 columns wide; below it what a failure expected and measured, and notes."""
    word = "FAILED" if check.status == "failed" else check.status
    result = "" if check.status in ("failed", "skipped") else check.result
    lines = [f"  {word:<8}{check.name:<39}{result:<22} {check.seconds:6.2f} s"]
    below = _compared(check) if check.status == "failed" else []
    for text in [*below, check.note] if check.note else below:
        lines += textwrap.wrap(
            text, COLUMNS, initial_indent=" " * 10, subsequent_indent=" " * 12, break_on_hyphens=False
        )
    return lines


def closing(done: Sequence[Check]) -> str:
    """'selfcheck: 41 ok, 1 skipped (needs public files), 0 failed'."""
    counts = Counter(check.status for check in done)
    reasons = ", ".join(sorted({check.reason for check in done if check.reason}))
    parts = [f"{counts['ok']} ok"]
    if counts["warning"]:
        parts.append(f"{counts['warning']} warning{'s' if counts['warning'] > 1 else ''}")
    if counts["skipped"]:
        parts.append(f"{counts['skipped']} skipped ({reasons})")
    return f"selfcheck: {', '.join(parts)}, {counts['failed']} failed"


def document(done: Sequence[Check]) -> dict[str, Any]:
    """What ``--json`` prints: versions, how many checks came out how, and every check. Numbers are finite or text."""
    counts = Counter(check.status for check in done)
    return {
        "versions": versions(),
        **{status: counts[status] for status in ("ok", "warning", "skipped", "failed")},
        "seconds": round(sum(check.seconds for check in done), 3),
        "checks": [_finite(asdict(check)) for check in done],
    }


def _take_one_thread() -> None:
    """The models are small: more threads only make them depend on what else runs. The timing checks set their own."""
    try:
        import torch
    except Exception:  # the checks that need it will say so
        return
    torch.set_num_threads(1)


def _compared(check: Check) -> list[str]:
    """What was expected and measured; of mappings the entries that differ, of long lists the place that is worst."""
    expected, measured, allowed = check.expected, check.measured, check.tolerance
    if not allowed:
        return [str(measured)]  # an error
    if isinstance(expected, dict) and isinstance(measured, dict):
        names = [name for name in {**expected, **measured} if expected.get(name) != measured.get(name)]
        pairs = [(f"{n} = {_text(expected.get(n))}", measured.get(n)) for n in names[:SHOWN_ENTRIES]]
    elif isinstance(expected, list) and isinstance(measured, list) and len(expected) == len(measured) > 1:
        first = next((k for k, (e, m) in enumerate(zip(expected, measured, strict=True)) if e != m), 0)
        place = first if check.place is None else check.place
        pairs = [(f"{_text(expected[place])} at place {place + 1} of {len(expected)}", measured[place])]
    else:
        pairs = [(_text(expected), measured)]
    return [f"expected {wanted} ({allowed}), measured {_text(found)}" for wanted, found in pairs]


def _text(value: Any) -> str:
    """Numbers with all their digits: those that differ may be the last."""
    if isinstance(value, list):
        return " ".join(map(_text, value)) or "nothing"
    return "nothing" if value is None else str(value)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
