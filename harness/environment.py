"""The machine and the software that a run happened on. Reads files and metadata; never imports torch.

``environment`` is what ``environment.json`` keeps; ``fingerprint`` is the part that timings depend on.
"""

from __future__ import annotations

import math
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    "ditbench",
    "torch",
    "torchvision",
    "triton",
    "numpy",
    "scipy",
    "fvcore",
    "scikit-learn",
    "safetensors",
    "pydantic",
    "torch-fidelity",
    "clean-fid",
)
# As this process was started: OpenMP, which comes with torch, may bind the thread that imports it to one core.
USABLE_CPUS = frozenset(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1))
_TOPOLOGY = Path("/sys/devices/system/cpu")
_CGROUP_LIMIT = Path("/sys/fs/cgroup/cpu.max")


def environment(device: str) -> dict[str, Any]:
    """What is known of this machine. ``device``: 'cpu' or 'cuda'.

    device, device_name  the device that is measured; for cuda the first visible GPU
    cpu, machine         the processor's model and architecture
    physical_cores, logical_cores   those that this process may use
    memory_mib           of the machine (int)
    os, kernel, python   versions as text
    versions             package -> version, installed ones only
    gpu                  {name, driver, memory_mib} or null
    git                  commit of the checkout that ditbench runs from, '+dirty' appended; null outside one
    """
    gpu = visible_gpu() if device == "cuda" else None
    cpu = _cpu_model()
    unknown = "unknown GPU (nvidia-smi tells nothing)"
    return {
        "device": device,
        "device_name": cpu if device == "cpu" else gpu["name"] if gpu else unknown,
        "cpu": cpu,
        "machine": platform.machine(),
        "physical_cores": physical_cores(),
        "logical_cores": len(USABLE_CPUS),
        "memory_mib": _memory_mib(),
        "os": _os_name(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "versions": versions(),
        "gpu": gpu,
        "git": _git_commit(),
    }


def fingerprint(environment: dict[str, Any]) -> dict[str, Any]:
    """The part of an environment that timings depend on. Timings of two fingerprints are never mixed."""
    gpu = environment["gpu"] or {}
    installed = environment["versions"]
    return {
        **{key: environment[key] for key in ("device", "device_name", "cpu", "machine", "python")},
        "physical_cores": environment["physical_cores"],
        "driver": gpu.get("driver"),
        "torch": installed.get("torch"),
        "triton": installed.get("triton"),
    }


def versions() -> dict[str, str]:
    """Package -> version, build tag included ('2.13.0+cpu'); what is not installed is left out."""
    found: dict[str, str] = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def resolve_threads(threads: int) -> int:
    """The number of torch threads: as asked, or for 0 every physical core that this process may use."""
    return threads if threads > 0 else physical_cores()


def physical_cores() -> int:
    """Cores that this process may use, >= 1. Hyper-threads count once; a container's CPU quota counts."""
    cores = {_siblings(cpu) for cpu in USABLE_CPUS}
    return max(1, min(len(cores), _cpu_quota() or len(cores)))


def visible_gpu() -> dict[str, Any] | None:
    """Name, driver and memory (MiB) of the first GPU that CUDA would use; None without a driver."""
    query = [
        "nvidia-smi",
        "--query-gpu=index,uuid,name,driver_version,memory.total",
        "--format=csv,noheader,nounits",
    ]
    answer = _output(query, seconds=10)
    return choose_gpu(answer, os.environ.get("CUDA_VISIBLE_DEVICES")) if answer else None


def choose_gpu(table: str, visible: str | None) -> dict[str, Any] | None:
    """The row of nvidia-smi's table that ``CUDA_VISIBLE_DEVICES`` (``visible``) names first; None if none.

    Columns of the table: index, uuid, name, driver version, memory in MiB.
    """
    rows = [[cell.strip() for cell in line.split(",")] for line in table.splitlines() if line.count(",") == 4]
    first = visible.split(",")[0].strip() if visible is not None else None
    for index, uuid, name, driver, memory in rows:
        if first is None or first == index or (first and uuid.startswith(first)):
            return {"name": name, "driver": driver, "memory_mib": int(memory) if memory.isdigit() else None}
    return None


def _siblings(cpu: int) -> str:
    """What names the core of a logical CPU; the CPU itself where the system does not tell."""
    try:
        return (_TOPOLOGY / f"cpu{cpu}/topology/thread_siblings_list").read_text().strip()
    except OSError:
        return str(cpu)


def _cpu_quota() -> int | None:
    """Whole cores that a container may keep busy; None without a limit."""
    try:
        quota, period = _CGROUP_LIMIT.read_text().split()
        return math.ceil(int(quota) / int(period))
    except (OSError, ValueError):  # no such file, or 'max' instead of a number
        return None


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine() or "unknown CPU"


def _memory_mib() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    except (ValueError, OSError, AttributeError):
        return None


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError, AttributeError):
        return f"{platform.system()} {platform.release()}"


def _git_commit() -> str | None:
    root = Path(__file__).resolve().parent.parent
    git = ["git", "-C", str(root), "--no-optional-locks"]
    top = _output([*git, "rev-parse", "--show-toplevel"], seconds=5)
    # An installed copy may lie inside another project's checkout, whose commit says nothing about this code.
    if top is None or Path(top).resolve() != root:
        return None
    commit = _output([*git, "rev-parse", "--verify", "HEAD"], seconds=5)
    changes = _output([*git, "status", "--porcelain", "--untracked-files=no"], seconds=5)
    return f"{commit}+dirty" if commit and changes else commit


def _output(command: list[str], seconds: float) -> str | None:
    """Standard output, stripped; None if the command is missing, fails or takes too long."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
