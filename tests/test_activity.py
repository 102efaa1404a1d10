"""Imposed activity: what is asked for is what is planned, counted and run; what cannot be is said in one line."""

from typing import Any

import pytest
import torch
from dydit_models import imposed_tokens, tokens_kept, width_of

from ditbench import methods
from ditbench.methods.dydit.activity import Activity
from ditbench.methods.dydit.choices import Width
from ditbench.methods.errors import ConfigError
from ditbench.methods.work import WorkLedger

SIZES = ["dydit-s-2", "dydit-b-2", "dydit-xl-2"]
SMALL: dict[str, Any] = {
    "input_size": 8,
    "patch_size": 2,
    "in_channels": 1,
    "num_classes": 10,
    "hidden_size": 32,
    "depth": 4,
    "num_heads": 4,
}


def on_meta(name: str, **config: Any):
    with torch.device("meta"):
        return methods.build(name, **config)


def means(model, plan):
    """Active shares of heads, groups and tokens, mean over the layers."""
    c = model.config
    width, imposed = width_of(plan), imposed_tokens(plan)
    heads = sum(map(len, width.heads)) / (c.depth * c.num_heads)
    groups = sum(map(len, width.groups)) / (c.depth * c.num_heads)
    tokens = 1.0 if imposed is None else sum(imposed) / (c.depth * c.tokens)
    return heads, groups, tokens


def block_share(model, plan):
    """MHSA and MLP MACs under ``plan`` as a share of the full blocks'."""
    c = model.config
    n, d, parts = c.tokens, c.hidden_size, c.num_heads
    attention, mlp = 4 * n * d * d + 2 * n * n * d, 8 * n * d * d
    width = plan.get(Width)
    heads = [parts if width is None else len(width.heads[layer]) for layer in range(c.depth)]
    groups = [parts if width is None else len(width.groups[layer]) for layer in range(c.depth)]
    tokens = imposed_tokens(plan) or (n,) * c.depth
    spent = sum(h / parts * attention + g / parts * k / n * mlp for h, g, k in zip(heads, groups, tokens, strict=True))
    return spent / (c.depth * (attention + mlp))


def refusal(**config: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        on_meta("dydit", **{**SMALL, **config})
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("activity")
    return message


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("target", [0.3, 0.5, 0.7, 0.9])
def test_a_target_is_hit_in_block_macs(name, target):
    model = on_meta(name, activity=target)
    assert block_share(model, model.plan([500])[0]) == pytest.approx(target, abs=2e-3)


@pytest.mark.parametrize("name", SIZES)
def test_a_target_is_hit_by_tokens_alone_and_nearly_by_width_alone(name):
    tokens_only = on_meta(name, activity=0.7, tdw=False)
    plan = tokens_only.plan([500])[0]
    assert plan.get(Width) is None
    assert block_share(tokens_only, plan) == pytest.approx(0.7, abs=2e-3)
    width_only = on_meta(name, activity=0.7, sdt=False)
    plan = width_only.plan([500])[0]
    assert imposed_tokens(plan) is None
    parts = width_only.config.depth * width_only.config.num_heads
    assert block_share(width_only, plan) == pytest.approx(0.7, abs=0.5 / parts + 1e-9)  # whole heads and groups


def test_a_target_keeps_the_token_share_asked_for():
    model = on_meta("dydit-xl-2", activity={"target": 0.5, "tokens": 0.8})
    plan = model.plan([500])[0]
    heads, groups, tokens = means(model, plan)
    assert (heads, groups, tokens) == pytest.approx((0.5, 0.625, 0.8), abs=5e-3)
    assert block_share(model, plan) == pytest.approx(0.5, abs=2e-3)


def test_fractions_given_one_by_one_are_planned():
    model = on_meta("dydit-xl-2", activity={"heads": 0.25, "groups": 0.75, "tokens": 0.4})
    assert means(model, model.plan([10])[0]) == pytest.approx((0.25, 0.75, 0.4), abs=5e-3)
    only_heads = on_meta("dydit-xl-2", activity={"heads": 0.25})
    assert means(only_heads, only_heads.plan([10])[0]) == pytest.approx((0.25, 1, 1), abs=2e-3)


def test_the_published_profile_has_its_published_points_and_is_monotone_between():
    model = on_meta("dydit-xl-2", activity="published")
    shares = {t: means(model, plan) for t, plan in zip((903, 401, 100), model.plan([903, 401, 100]), strict=True)}
    assert shares[903] == pytest.approx((0.098, 0.205, 1), abs=3e-3)
    assert shares[401] == pytest.approx((0.308, 0.520, 1), abs=3e-3)
    assert shares[100] == pytest.approx((0.980, 0.913, 1), abs=3e-3)
    times = list(range(0, 1000, 25))
    heads, groups, _ = zip(*(means(model, plan) for plan in model.plan(times)), strict=True)
    assert list(heads) == sorted(heads, reverse=True) and list(groups) == sorted(groups, reverse=True)
    assert len(set(heads)) > 20, "changes with time, not in three stairs"


def test_the_published_profile_takes_a_token_share():
    model = on_meta("dydit-xl-2", activity={"profile": "published", "tokens": 0.5})
    for plan in model.plan([0, 500, 999]):
        assert means(model, plan)[2] == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("activity", [0.001, {"heads": 0.01, "groups": 0.01}, {"target": 0.01, "tokens": 0.5}])
def test_every_layer_keeps_a_head_and_a_group(activity):
    model = on_meta("dydit-s-2", activity=activity)
    plan = model.plan([999])[0]
    assert all(len(layer) == 1 for layer in (*width_of(plan).heads, *width_of(plan).groups))


def test_full_activity_leaves_everything_on():
    model = on_meta("dydit-s-2", activity=1)
    plan = model.plan([0])[0]
    assert means(model, plan) == (1, 1, 1)
    assert imposed_tokens(plan) == (256,) * 12


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"activity": 0}, ["target", "(0, 1]", "0"]),
        ({"activity": 1.5}, ["target", "(0, 1]", "1.5"]),
        ({"activity": float("nan")}, ["target", "nan"]),
        ({"activity": True}, ["target", "True"]),
        ({"activity": [0.5]}, ["target", "profile", "[0.5]"]),
        ({"activity": "x"}, ["profile", "published", "'x'"]),
        ({"activity": {"token": 0.5}}, ["unknown", "'token'", "tokens"]),
        ({"activity": {"tokens": -0.1}}, ["tokens", "[0, 1]", "-0.1"]),
        ({"activity": {"heads": "half"}}, ["heads", "'half'"]),
        ({"activity": {"target": 0.5, "heads": 0.5}}, ["one of", "target", "heads"]),
        ({"activity": {"profile": "published", "groups": 0.5}}, ["one of", "profile", "groups"]),
        ({"activity": {"tokens": 0.5}, "sdt": False}, ["sdt", "tokens"]),
        ({"activity": {"profile": "published", "tokens": 0.5}, "sdt": False}, ["sdt", "tokens"]),
        ({"activity": {"target": 0.5, "tokens": 0.7}, "sdt": False}, ["sdt", "tokens"]),
        ({"activity": {"target": 0.9, "tokens": 0.5}, "tdw": False}, ["tdw", "tokens"]),
        ({"activity": {"heads": 0.5}, "tdw": False}, ["tdw", "heads"]),
        ({"activity": "published", "tdw": False}, ["tdw"]),
        ({"activity": {"target": 0.5, "tokens": 0.3}}, ["tokens", "0.3", "0.5"]),
        ({"activity": 0.3, "tdw": False}, ["tdw", "attention", "0.3"]),
    ],
    ids=str,
)
def test_what_cannot_be_imposed_is_refused_in_one_line(config, words):
    message = refusal(**config)
    assert all(word in message for word in words), message


def test_a_target_by_tokens_alone_names_the_attention_s_share():
    assert "0.385" in refusal(activity=0.2, tdw=False)  # (4NC² + 2N²C) / (12NC² + 2N²C) with N = 16, C = 32


def test_parsed_activity_is_accepted_again():
    parsed = Activity.parse({"target": 0.5})
    assert Activity.parse(parsed) is parsed
    assert Activity.parse(0.5) == parsed


def test_routers_are_not_trained_under_imposed_activity():
    model = methods.build("dydit-testing", activity=0.5)
    x, t, y = torch.randn(1, 1, 8, 8), torch.tensor([5]), torch.tensor([1])
    with pytest.raises(ConfigError, match="activity"):
        model.masked(x, t, y)


@torch.no_grad()
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize(
    "activity", [0.3, 0.5, 0.8, {"tokens": 0.4}, {"tokens": 0.0}, {"heads": 0.5, "groups": 0.25, "tokens": 0.9}, 1.0]
)
def test_imposed_tokens_are_executed_exactly(activity, rows):
    model = methods.build("dydit", **SMALL, activity=activity)
    plan = model.plan([300])[0]
    ledger = WorkLedger(keep_maps=True)
    x = torch.randn(rows, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    out = model(x, torch.full((rows,), 300), torch.zeros(rows, dtype=torch.long), plan=plan, ledger=ledger)
    (entry,) = ledger.entries
    assert tokens_kept(entry) == tuple(rows * kept for kept in imposed_tokens(plan))
    assert entry.maps.sum(2).tolist() == [[kept] * rows for kept in imposed_tokens(plan)]
    assert out.isfinite().all()


def test_imposed_plans_do_not_depend_on_weights_or_device():
    real, meta = methods.build("dydit", **SMALL, activity=0.5), on_meta("dydit", **SMALL, activity=0.5)
    assert real.plan([3, 700]) == meta.plan([3, 700])
    assert not real.data_decide and not real.needs_weights
    assert methods.build("dydit", **SMALL).data_decide
