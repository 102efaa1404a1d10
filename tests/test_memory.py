"""Memory of a loop: kept by branch, reused under equal choices only, given back without a copy, put back as it was."""

import pytest
import torch

from ditbench.methods.memory import BRANCHES, Memory

ONE, OTHER = BRANCHES[:1], BRANCHES[1:]


def test_a_new_one_is_empty():
    memory = Memory(2)
    assert len(memory) == memory.bytes == 0 and memory.get(ONE, "a") is None


def test_a_branch_that_does_not_run_keeps_what_it_had():
    memory, first, second = Memory(2), torch.randn(4, 3), torch.randn(2, 3)
    memory.put(BRANCHES, "a", first)
    memory.put(ONE, "a", second)
    assert memory.get(ONE, "a") is not None and torch.equal(memory.get(ONE, "a"), second)
    assert torch.equal(memory.get(OTHER, "a"), first[2:])
    assert torch.equal(memory.get(BRANCHES, "a"), torch.cat([second, first[2:]]))


def test_what_one_branch_lacks_is_not_there_for_both():
    memory = Memory(2)
    memory.put(ONE, "a", torch.randn(2, 3))
    assert memory.get(BRANCHES, "a") is None and memory.get(OTHER, "a") is None and memory.get(ONE, "b") is None


def test_what_was_made_under_other_choices_is_not_reused():
    memory, value = Memory(1), torch.randn(2, 3)
    memory.put(BRANCHES, "a", value, stamp=("narrow",))
    assert memory.get(BRANCHES, "a") is None is memory.get(ONE, "a", ("wide",))
    memory.put(OTHER, "a", value[1:], stamp=("wide",))
    assert memory.get(BRANCHES, "a", ("narrow",)) is None is memory.get(BRANCHES, "a", ("wide",))
    assert torch.equal(memory.get(ONE, "a", ("narrow",)), value[:1])


@pytest.mark.parametrize("inference", [True, False])
@pytest.mark.parametrize("view", [
    lambda x: x, lambda x: x[:, :2], lambda x: x[..., 1:], lambda x: x.mT, lambda x: x[::2], lambda x: x[2:],
], ids=["whole", "channels", "offset", "turned", "strided", "last"])  # fmt: skip
def test_both_branches_come_back_as_they_were_put_without_a_copy(inference, view):
    with torch.inference_mode(inference):
        value = view(torch.randn(8, 4, 4))
        memory = Memory(len(value) // 2)
        memory.put(BRANCHES, "a", value)
        found = memory.get(BRANCHES, "a")
        assert torch.equal(found, value) and found.data_ptr() == value.data_ptr()
        one, other = memory.get(ONE, "a"), memory.get(OTHER, "a")
        assert torch.equal(torch.cat([one, other]), value) and one.data_ptr() == value.data_ptr()
        assert torch.equal(memory.get(BRANCHES[::-1], "a"), torch.cat([other, one])), "rows in the order asked for"


@pytest.mark.parametrize("rows", [1, 3, 4])
def test_rows_of_other_images_than_the_loop_s_are_an_error(rows):
    with pytest.raises(ValueError, match=f"{rows} rows"):
        Memory(1).put(BRANCHES, "a", torch.randn(rows, 2))


def test_a_snapshot_does_not_follow_and_can_be_put_back():
    memory, first, second = Memory(1), torch.randn(1, 2), torch.randn(1, 2)
    memory.put(ONE, "a", first)
    before = memory.snapshot()
    memory.put(ONE, "a", second)
    memory.put(ONE, "b", second)
    after = memory.snapshot()
    assert len(before) == 1 and torch.equal(before.get(ONE, "a"), first)
    memory.restore(before)
    assert len(memory) == 1 and torch.equal(memory.get(ONE, "a"), first)
    memory.put(ONE, "c", second)
    assert len(before) == 1, "what was put back does not write to the snapshot"
    memory.restore(after)
    assert len(memory) == 2 and torch.equal(memory.get(ONE, "a"), second)


def test_storage_that_several_views_share_counts_once():
    memory, value = Memory(2), torch.randn(4, 8)
    memory.put(BRANCHES, "a", value)
    assert memory.bytes == 4 * 8 * 4
    memory.put(ONE, "b", value[:2, :3])
    assert memory.bytes == 4 * 8 * 4
    memory.put(ONE, "c", torch.randn(2, 5))
    assert memory.bytes == 4 * 8 * 4 + 2 * 5 * 4
    memory.put(ONE, "a", torch.randn(2, 8))
    assert memory.bytes == 4 * 8 * 4 + 2 * 5 * 4 + 2 * 8 * 4, "the other branch still holds the old one whole"
