"""Cores, memory, GPUs and disks."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from stl_programs.doctor.finding import Finding, output
from stl_programs.doctor.installation import version_of

LOW_DISK = 1e9
"""Bytes; a compile writes adapters, journals and rows."""


def machine() -> Iterator[Finding]:
    """Cores that this process may use, memory, and GPUs as nvidia-smi lists them."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = os.environ.get("OMP_NUM_THREADS", "")
    yield Finding("cores", f"{cores}{f', OMP_NUM_THREADS={threads}' if threads.isdecimal() else ''}",
                  facts={"cores": cores})
    yield _memory(Path("/proc/meminfo"))
    gpus = [line for line in output("nvidia-smi", "--query-gpu=name,memory.total,driver_version",
                                     "--format=csv,noheader").splitlines() if line.strip()]
    blind = bool(gpus) and (version_of("torch") or "").endswith("+cpu")
    yield Finding("GPU", "; ".join(gpus) + ("; PyTorch is a CPU build and does not see it" if blind else "")
                  if gpus else "none that nvidia-smi lists", blind, {"gpus": gpus})


def _memory(table: Path) -> Finding:
    if not table.is_file():
        return Finding("memory", f"unknown: {platform.system()} has no {table}")
    kib = {name: int(rest.split()[0]) for name, _, rest in
           (line.partition(":") for line in table.read_text().splitlines())}
    total, free = kib["MemTotal"] * 1024, kib["MemAvailable"] * 1024
    return Finding("memory", f"{total / 2**30:.1f} GiB, {free / 2**30:.1f} GiB available",
                   facts={"total_bytes": total, "available_bytes": free})


def disk() -> Iterator[Finding]:
    """Free space where runs and temporary files are written."""
    for name, place in (("working directory", os.curdir), ("temporary files", tempfile.gettempdir())):
        free = shutil.disk_usage(place).free
        yield Finding(name, f"{free / 1e9:.1f} GB free", free < LOW_DISK, {"free_bytes": free})
