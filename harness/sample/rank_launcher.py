"""``torchrun`` on this machine for one order: starts the ranks, ends them all when one fails, and says which one did.

``python -m ditbench.harness.sample.rank_launcher N ORDER.json``. It is torch's own launcher, called as a
function, because only so does one learn which rank ended by which signal.
"""

from __future__ import annotations

import os
import signal
import sys
from tempfile import TemporaryDirectory

from ditbench.harness.lifetime import die_with_parent, named_parent
from ditbench.harness.sample.ranks import say_failure

ENDED = "was ended"


def main(nproc: str, order: str) -> int:
    """Exit code: 0, or 1 when a rank failed."""
    die_with_parent()
    os.environ.update(named_parent(os.environ))
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    try:
        with TemporaryDirectory() as logs:  # torch makes one in any case, and would leave it
            arguments = ["--standalone", f"--nproc-per-node={nproc}", f"--log-dir={logs}"]
            run(parse_args([*arguments, "-m", "ditbench.harness.sample.ranks", order]))  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        # The agent itself ends the ranks that are left with SIGTERM, and a rank that raises has said so.
        killed = {rank: each for rank, each in error.failures.items() if each.exitcode not in (1, -signal.SIGTERM)}
        for rank, failure in killed.items():
            say_failure(rank, _ending(failure.exitcode))
        return 1
    return 0


def _ending(code: int) -> dict[str, str]:
    if code >= 0:
        return {"kind": "crash", "message": f"{ENDED} with exit code {code}", "traceback": ""}
    name = signal.Signals(-code).name
    if -code == signal.SIGKILL:
        message = f"{ENDED} by {name}, most often because the system is out of memory"
        return {"kind": "out-of-memory", "message": message, "traceback": ""}
    return {"kind": "crash", "message": f"{ENDED} by {name}", "traceback": ""}


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
