"""Conditions: rows of named tensors, what stands for none, and models that are told nothing."""

import pytest
import torch
from commands import ditbench
from torch import Tensor, nn

from ditbench.harness.assets.locations import weights_path
from ditbench.harness.measure.count_cell import measure_flops
from ditbench.harness.sample.generate import bind, checkpoint_problem
from ditbench.harness.sample.seeds import SampleStreams
from ditbench.harness.store.identity import samples_identity
from ditbench.harness.store.records import CellSpec
from ditbench.harness.suite.load import load_suite
from ditbench.harness.suite.plan import make_plan
from ditbench.methods.conditions import Conditions, of_labels, zeros
from ditbench.methods.diffusion.guidance import GuidanceRule, GuidedDenoiser
from ditbench.methods.entries import MethodEntry
from ditbench.methods.errors import ConfigError
from ditbench.methods.facts import ClassLabels, Facts
from ditbench.methods.plans import StepPlan
from ditbench.methods.protocols import Denoiser, StaticWork
from ditbench.methods.registry import methods
from ditbench.methods.space import Space

CLASSES = Facts(Space(1, 8), conditions=(ClassLabels(10),))
UNTOLD = Facts(Space(1, 8))


class Untold(StaticWork, nn.Module):
    """A model that is told the time alone."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 1, 3, padding=1)

    @property
    def facts(self) -> Facts:
        return UNTOLD

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.layer(x) + t.to(x.dtype).view(-1, 1, 1, 1) / 1000


def two_kinds() -> Conditions:
    tensors = {"label": torch.tensor([1, 2, 3]), "text": torch.randn(3, 4, 2)}
    return Conditions(3, tensors, {"label": torch.tensor([10]), "text": torch.zeros(1, 4, 2)})


def same(a: Conditions, b: Conditions) -> bool:
    names = a.tensors.keys() == b.tensors.keys() and a.nothing.keys() == b.nothing.keys()
    return names and len(a) == len(b) and all(torch.equal(a[name], b[name]) for name in a.tensors)


def test_rows_are_joined_chosen_and_moved_together():
    both = two_kinds()
    joined = both.cat(both.null())
    assert len(joined) == 6 and joined["text"].shape == (6, 4, 2)
    assert same(joined.rows(slice(0, 3)), both) and same(joined.rows(range(3, 6)), both.null())
    assert both.rows([2, 0])["label"].tolist() == [3, 1] and len(both.rows(torch.tensor([1]))) == 1
    moved = both.to("cpu", torch.bfloat16)
    assert moved["text"].dtype == moved.nothing["text"].dtype == torch.bfloat16 and moved["label"].dtype == torch.long
    assert same(both.replaced(dict(both.tensors)), both) and "text" in both and "image" not in both


def test_nothing_is_said_in_as_many_rows():
    none = two_kinds().null()
    assert none["label"].tolist() == [10] * 3 and not none["text"].any() and none["text"].is_contiguous()
    assert same(none.null(), none)


def test_conditions_are_frozen_and_their_rows_counted():
    with pytest.raises(TypeError):
        two_kinds().tensors["label"] = torch.zeros(3)  # type: ignore[index]
    with pytest.raises(ConfigError, match="'label' has 2 rows, and the batch 3"):
        Conditions(3, {"label": torch.zeros(2)})


@pytest.mark.parametrize("told", [
    Conditions(2), Conditions(2, {"label": torch.zeros(2)}), zeros(UNTOLD, 2), of_labels(
        Facts(Space(1, 8), conditions=(ClassLabels(10, droppable=False),)), torch.tensor([1, 2])
    ),
], ids=["no tensor", "no nothing", "untold", "not droppable"])  # fmt: skip
def test_what_cannot_be_left_out_is_no_second_branch(told):
    with pytest.raises(ConfigError, match="cannot be guided"):
        told.null()


def test_what_a_sample_is_told_is_drawn_from_its_own_stream_before_its_noise():
    told = [SampleStreams(3, range(k, k + 1), CLASSES, "cpu") for k in range(4)]
    together = SampleStreams(3, range(4), CLASSES, "cpu")
    assert together.conditions["label"].tolist() == [int(each.conditions["label"]) for each in told]
    assert torch.equal(together.noise(), torch.cat([each.noise() for each in told]))
    assert not torch.equal(
        SampleStreams(3, range(4), UNTOLD, "cpu").noise(), SampleStreams(3, range(4), CLASSES, "cpu").noise()
    )
    assert len(SampleStreams(3, range(4), UNTOLD, "cpu").conditions) == 4


# Models that are told nothing


@pytest.fixture
def untold(monkeypatch) -> CellSpec:
    monkeypatch.setitem(
        methods()._entries, "untold", MethodEntry(f"{__name__}:Untold", name="untold", facts=f"{__name__}:untold_facts")
    )
    return CellSpec(cell="c", method="untold", sampler="ddim", steps=4)


def untold_facts(config) -> Facts:
    return UNTOLD


def test_labels_are_refused_where_none_are_taken():
    with pytest.raises(ConfigError, match="takes no class labels"):
        of_labels(UNTOLD, torch.tensor([1]))
    assert not UNTOLD.guidable and CLASSES.guidable


def test_an_unconditional_model_samples_and_is_counted_and_proved(untold):
    assert isinstance(Untold(), Denoiser) and checkpoint_problem(untold, None) is None
    samples, labels = bind(untold, None).generate(range(3))
    assert samples.shape == (3, 1, 8, 8) and samples.isfinite().all() and labels.tolist() == [0] * 3
    found = measure_flops(untold)
    assert found.gmacs_image == pytest.approx(4 * 9 * 64 / 1e9, rel=1e-12) and found.proof["distinct_calls"] == 1


def test_an_unconditional_model_is_not_guided(untold):
    found = checkpoint_problem(untold.model_copy(update={"guidance_scale": 2.0}), None)
    assert found is not None and found.field == "guidance" and "give guidance 1" in found.message
    model = Untold()
    with pytest.raises(ConfigError, match="cannot be guided"):
        GuidedDenoiser(model, zeros(UNTOLD, 2), [StepPlan(0.0)], GuidanceRule(2.0))


SUITE = """
suite: told
cells:
  - {{name: a, method: dit-digits, weights: "zoo:dit-digits", sampler: ddim, steps: 2{told}}}
"""


def planned(folder, told=""):
    (folder / "s.yaml").write_text(SUITE.format(told=told))
    return make_plan(load_suite(folder / "s.yaml")).cells[0]


def test_a_suite_says_what_samples_are_told_and_they_are(tmp_path):
    spec = planned(tmp_path, ", conditions: {name: labels, only: [3, 7]}").spec
    labels = bind(spec, weights_path("zoo:dit-digits")).generate(range(12))[1]
    assert {*labels.tolist()} == {3, 7}
    usual = bind(planned(tmp_path).spec, weights_path("zoo:dit-digits")).generate(range(12))[1]
    assert len({*usual.tolist()}) > 4


def test_what_samples_are_told_is_part_of_their_address_and_the_usual_is_left_out(tmp_path):
    usual, other = (planned(tmp_path, told) for told in ("", ", conditions: {name: labels, only: [3]}"))
    assert usual.spec.conditions == {} and samples_identity(usual.spec, 4, "t") != samples_identity(other.spec, 4, "t")


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ("{name: label}", "unknown condition source 'label' (did you mean 'labels'?)"),
        ("{name: labels, only: [10]}", "10 is no class of 0..9"),
        ("{name: labels, onlyy: [1]}", "unexpected keyword argument 'onlyy'"),
    ],
)
def test_a_source_that_does_not_fit_is_one_line_at_its_place(tmp_path, told, words):
    (tmp_path / "s.yaml").write_text(SUITE.format(told=f", conditions: {told}"))
    done = ditbench("plan", "s.yaml", "--no-timing", cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("s.yaml:4:") and words in done.stderr
    assert done.stderr.count("\n") == 1
