"""Checks of what is known of a method before it is built."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys

from ditbench.harness.conformance.outcome import Fault, Outcome, does_not_apply, judged, ok, wrong
from ditbench.harness.conformance.subject import Subject
from ditbench.harness.imports import import_variables
from ditbench.methods.facts import Facts

_ASKED = """
import ast, sys
from ditbench.methods.registry import facts_of, methods
name, config = ast.literal_eval(sys.argv[1])
if name in methods():
    facts_of(name, config)
    print("torch" if "torch" in sys.modules else "light")
else:
    print("unknown")
"""


def equal(subject: Subject) -> Outcome:
    """What the entry says is what the model says, and what its process predicts."""
    model = subject.model
    told = subject.facts if subject.entry.facts else model.facts
    where = subject.place("facts")
    source = subject.entry.facts if isinstance(subject.entry.facts, str) else "the entry's facts"
    faults = [
        Fault(
            f"{field.name}: the entry says {_said(told, field.name)}, the model {_said(model.facts, field.name)}",
            f"{source or 'the entry'} and {where}",
        )
        for field in dataclasses.fields(Facts)
        if getattr(told, field.name) != getattr(model.facts, field.name)
    ]
    if model.facts.predicts != model.process.predicts:
        faults.append(
            Fault(
                f"the facts say that it predicts {model.facts.predicts}, and its process {model.process.predicts}",
                f"{where} and {subject.place('process')}",
            )
        )
    return judged(faults)


def without_torch(subject: Subject) -> Outcome:
    """Listing and planning stay quick."""
    if not subject.entry.facts:
        return ok("the entry has no facts: the model is built on meta to know them, which imports torch")
    words = [sys.executable, "-c", _ASKED, repr((subject.method, subject.config))]
    variables = {**os.environ, **import_variables()}
    done = subprocess.run(words, env=variables, capture_output=True, text=True, check=False)
    lines = done.stdout.split()
    if done.returncode or not lines:
        what = (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]
        return wrong(f"in a process of its own: {what[:200]}", str(subject.entry.facts))
    if lines[-1] == "unknown":
        return does_not_apply("the method is registered in this process only")
    if lines[-1] == "torch":
        return wrong("its facts import torch", str(subject.entry.facts))
    return ok()


def _said(facts: Facts, field: str) -> str:
    return str(getattr(facts, field))
