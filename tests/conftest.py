"""Shared settings of the tests."""

import os

# Tests may run in several workers. Each keeps to a core of its own, and so do the commands that it starts: threads of
# tiny models that share cores with another process cost far more time than they save.
_worker = os.environ.get("PYTEST_XDIST_WORKER", "")
if _worker.startswith("gw") and hasattr(os, "sched_setaffinity"):
    _cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {_cores[int(_worker[2:]) % len(_cores)]})

import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def one_thread():
    """What ran in the process before may have had others, and threads move the last bits of a sum."""
    torch.set_num_threads(1)


collect_ignore = ["plugins"]  # distributions with tests of their own, which run where they are visible
