"""LoRA: updates that start as nothing, cost nothing once merged, and leave the base as it is."""

from typing import Any

import pytest
import torch
from dydit_models import agree
from flexidit_models import patch_plan
from test_flexidit import enlivened, given, lively
from torch import nn

from ditbench import methods
from ditbench.harness.measure.flops import WorkCounter
from ditbench.harness.measure.operators import count_module
from ditbench.methods.errors import CheckpointError
from ditbench.methods.lora.config import AdapterConfig
from ditbench.methods.lora.lora import LoraFactors, LoraLinear, Switch, add_lora
from ditbench.methods.prepared import PreparedWeights


class Net(nn.Module):
    """Anything with linear layers, nested and of other kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.ModuleDict({"fc1": nn.Linear(6, 8), "fc10": nn.Linear(8, 8)})
        self.proj = nn.Linear(8, 5, bias=False)
        self.conv = nn.Conv1d(1, 1, 1)

    def forward(self, x):
        return self.proj(self.inner["fc10"](self.inner["fc1"](x)).relu())


def lora(targets: tuple[str, ...], rank: int, **options: Any) -> AdapterConfig:
    """A config for layers that are not a transformer's."""
    config = AdapterConfig(rank=rank, **options)
    object.__setattr__(config, "targets", targets)
    return config


def adapted(switch: Switch | None = None, targets=("inner.fc1", "proj"), random: bool = True, **options: Any):
    """A net with updates 'a' and 'b' on two of its layers, and the same net without."""
    torch.manual_seed(0)
    base, net = Net().eval(), Net().eval()
    net.load_state_dict(base.state_dict())
    switch = switch or Switch()
    layers = add_lora(net, lora(targets, options.pop("rank", 3), **options), ("a", "b"), switch)
    if random:
        with torch.no_grad():
            for name, parameter in net.named_parameters():
                if ".adapters." in name:
                    parameter.normal_()
    return base, net.eval(), switch, layers


X = torch.randn(7, 6, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
@pytest.mark.parametrize("merged", [True, False])
@pytest.mark.parametrize("active", [None, "a", "b", "c"])
def test_new_updates_change_nothing_to_the_bit(active, merged):
    base, net, switch, _ = adapted(Switch(merged), random=False)
    switch.active = active
    assert torch.equal(net(X), base(X))
    assert torch.equal(net.train()(X), base(X))


def test_a_new_update_can_learn():
    _, net, switch, layers = adapted(random=False)
    switch.active = "a"
    net.train()(X).square().sum().backward()
    for layer in layers:
        assert layer.adapters["a"].up.grad.abs().max() > 0, "its product is zero, its gradient is not"
        assert layer.adapters["b"].up.grad is None


@torch.no_grad()
@pytest.mark.parametrize(("alpha", "scale"), [(None, 1.0), (6.0, 2.0)])
@pytest.mark.parametrize("merged", [True, False])
def test_an_update_adds_its_scaled_product(merged, alpha, scale):
    base, net, switch, (layer, _) = adapted(Switch(merged), alpha=alpha)
    factors = layer.adapters["b"]
    expected = base.inner["fc1"](X) + scale * X @ factors.down.T @ factors.up.T
    switch.active = "b"
    agree(layer(X), expected, 1e-6)
    switch.active = "a"
    assert not torch.allclose(layer(X), expected, atol=0.1), "each name has its own"
    for active in (None, "c"):
        switch.active = active
        assert torch.equal(net(X), base(X)), "what is off leaves the base exact"


@torch.no_grad()
def test_merged_equals_beside():
    (_, one, first, _), (_, other, second, _) = adapted(Switch(True)), adapted(Switch(False))
    for active in ("a", "b"):
        first.active = second.active = active
        agree(one(X), other(X), 1e-5)


@torch.no_grad()
def test_merging_happens_once_and_again_when_the_weights_change(monkeypatch):
    _, net, switch, layers = adapted()
    made, real = [], LoraFactors.update
    monkeypatch.setattr(LoraFactors, "update", lambda self, switch: made.append(self) or real(self, switch))

    def merges() -> int:
        made.clear()
        net(X)
        return len(made)

    switch.active = "a"
    assert merges() == 2 and merges() == 0
    switch.active = "b"
    assert merges() == 2 and merges() == 0
    switch.active = "a"
    assert merges() == 0, "both are kept"
    assert switch.prepared.bytes == 4 * 2 * sum(layer.weight.numel() for layer in layers)
    for weight in (layers[0].weight, layers[0].adapters["a"].up, layers[0].adapters["a"].down):
        before = net(X)
        weight.mul_(2.0)
        assert merges() == 1 and not torch.equal(net(X), before)
    net.train()
    assert merges() == 0, "in training updates run beside the weights"


@torch.no_grad()
def test_without_memory_merged_weights_are_made_every_time_and_the_result_is_the_same():
    (_, one, first, _), (_, other, second, _) = adapted(), adapted(Switch(prepared=PreparedWeights(0)))
    first.active = second.active = "a"
    assert torch.equal(one(X), other(X)) and torch.equal(one(X), other(X))
    assert second.prepared.bytes == 0 < first.prepared.bytes


def test_only_the_named_layers_of_any_module_are_adapted_and_the_base_keeps_its_names():
    base, net, _, layers = adapted()
    assert layers == [net.inner["fc1"], net.proj] and all(type(layer) is LoraLinear for layer in layers)
    assert type(net.inner["fc10"]) is nn.Linear and net.proj.bias is None
    added = {name for name in net.state_dict() if ".adapters." in name}
    assert set(net.state_dict()) - added == set(base.state_dict())
    assert len(added) == 2 * 2 * 2
    assert [type(m) for m in adapted(targets=("fc1", "fc10"))[3]] == [LoraLinear] * 2, "by the last part of the path"


@pytest.mark.parametrize("target", ["fc2", "c1", "conv", "inner"])
def test_a_target_that_no_linear_layer_has_is_an_error(target):
    with pytest.raises(ValueError, match=repr(target)):
        adapted(targets=("proj", target))


@torch.no_grad()
@pytest.mark.parametrize("merged", [True, False])
def test_updates_take_the_number_type_of_their_layer(merged):
    net, switch = Net().double().eval(), Switch(merged)
    add_lora(net, lora(("proj",), 2), ("a",), switch)
    switch.active = "a"
    assert net(X.double()).dtype == torch.float64
    assert {p.dtype for p in net.parameters()} == {torch.float64}


def test_beside_the_weights_an_update_costs_its_two_products():
    def macs(merged: bool, active: str | None) -> int:
        _, _, switch, (layer, _) = adapted(Switch(merged), rank=2)
        switch.active = active
        layer(X)
        return count_module(Held(layer), (X,)).total()

    assert macs(True, None) == macs(False, None) == macs(True, "a") == 7 * 6 * 8
    assert macs(False, "a") == 7 * (6 * 8 + 6 * 2 + 2 * 8)


class Held(nn.Module):
    """What counting's ``eval`` leaves as it is."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module.requires_grad_(False)

    def train(self, mode: bool = True):
        return self

    def forward(self, x):
        return self.module(x)


# In FlexiDiT


def test_a_converted_flexidit_trains_what_lora_adds_and_nothing_of_its_base():
    base = methods.build("dit-testing")
    model = methods.convert(base, "flexidit-testing", recipe="lora", size_norm=True)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name for name, _ in model.named_parameters()} - trained == set(base.state_dict())
    adapters = {name.split(".adapters.")[0] for name in trained if ".adapters." in name}
    assert adapters == {
        f"blocks.{k}.{end}" for k in range(2) for end in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    }
    assert {name for name in trained if ".adapters." not in name} == {
        "size_embed.4", "size_norms.4.weight", "size_norms.4.bias",
        *(f"new_sizes.4.{end}.{kind}" for end in ("x_embedder.proj", "linear") for kind in ("weight", "bias")),
    }  # fmt: skip


STATIC = ("input_size", "patch_size", "in_channels", "num_classes", "hidden_size", "depth", "num_heads")


@torch.no_grad()
def test_each_new_size_of_a_flexidit_has_its_own_update():
    model = lively(recipe="lora")
    before = {size: model(*given(model), patch_size=size) for size in (2, 4, 8)}
    model.blocks[1].mlp.fc1.adapters["8"].up.add_(0.1)
    for size, out in before.items():
        assert torch.equal(model(*given(model), patch_size=size), out) == (size != 8)


@torch.no_grad()
@pytest.mark.parametrize("config", [{}, {"recipe": "lora"}, {"recipe": "lora", "adapter": {"folded": False}}], ids=str)
def test_a_conversion_keeps_the_number_type_at_every_size(config):
    base = enlivened(methods.build("dit-testing")).bfloat16()
    model = methods.convert(base, "flexidit-testing", size_norm=True, **config)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    x, t, y = given(model)
    assert all(model(x.bfloat16(), t, y, patch_size=size).dtype == torch.bfloat16 for size in (2, 4))


@torch.no_grad()
def test_a_flexidit_s_merged_and_unmerged_updates_agree_through_a_file(tmp_path):
    models = [lively(recipe="lora"), lively(recipe="lora", adapter={"folded": False})]
    methods.weights.save_state(tmp_path / "w.safetensors", models[0].state_dict(), {})
    fresh = methods.build("flexidit", **{name: getattr(models[0].config, name) for name in STATIC},
                          patch_sizes=[2, 4, 8], recipe="lora")  # fmt: skip
    models.append(methods.load_weights(fresh, tmp_path / "w.safetensors"))
    for size in (4, 8):
        first, *others = (model(*given(model), patch_size=size) for model in models)
        agree(others[0], first, 1e-5)
        assert torch.equal(others[1], first)
    with pytest.raises(CheckpointError, match=r"adapters|new_sizes|have another shape"):
        methods.load_weights(lively(recipe="lora", adapter={"rank": 4}), tmp_path / "w.safetensors")


def test_a_flexidit_without_weights_has_a_base_that_works():
    """For the clock: zero gates draw less power, and the frozen base is most of the model."""
    model = methods.build("flexidit-testing", recipe="lora")
    methods.weights.randomise(model, 0)
    assert model.blocks[0].adaLN_modulation[1].weight.abs().max() > 0
    assert model.final_layer.linear.weight.abs().max() > 0


def test_size_norms_and_unmerged_updates_cost_what_they_execute():
    def counted(size: int, **config: Any):
        with torch.device("meta"):
            model = methods.build("flexidit-s-2", **config)
        return WorkCounter(model).call(patch_plan(0.0, size))

    n, d, depth, r = 64, 384, 12, 32
    assert counted(4, size_norm=True)["layer_norm"] - counted(4)["layer_norm"] == 5 * n * d  # affine
    assert counted(2, size_norm=True) == counted(2) == counted(2, recipe="lora", adapter={"folded": False})
    assert counted(4, recipe="lora") == counted(4), "merged updates are free"
    assert counted(4, recipe="lora", adapter={"folded": False}).total() - counted(4).total() == depth * n * r * d * 16
