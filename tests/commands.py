"""Running the command line as a user does: in its own process, from any folder."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PLUGIN = Path(__file__).parent / "plugin"


def environment(plugin: bool = False) -> dict[str, str]:
    path = [str(PLUGIN)] if plugin else []
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *path])}


def ditbench(*arguments: object, cwd: Path, plugin: bool = False) -> subprocess.CompletedProcess[str]:
    """Run a verb to its end; the caller looks at returncode, stdout and stderr."""
    command = [sys.executable, "-m", "ditbench", *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd, env=environment(plugin), capture_output=True, text=True, check=False, timeout=300
    )


def start(*arguments: object, cwd: Path) -> subprocess.Popen[bytes]:
    """Start a verb and return at once."""
    command = [sys.executable, "-m", "ditbench", *map(str, arguments)]
    return subprocess.Popen(command, cwd=cwd, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
