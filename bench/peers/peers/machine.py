# SPDX-License-Identifier: MIT
"""What the system says about this machine, and what runs on it."""

from __future__ import annotations

import os
import pathlib
import platform
import time

CPUS = pathlib.Path("/sys/devices/system/cpu")


def cpus() -> list[int]:
    """CPUs that this process may use, one per core: a second hardware thread adds no multiply-adds."""
    chosen: dict[str, int] = {}
    for cpu in sorted(os.sched_getaffinity(0)):
        siblings = CPUS / f"cpu{cpu}/topology/thread_siblings_list"
        chosen.setdefault(siblings.read_text() if siblings.exists() else str(cpu), cpu)
    return sorted(chosen.values())


def _size(text: str) -> int:
    text = text.strip()
    units = {"K": 2**10, "M": 2**20, "G": 2**30}
    return int(text[:-1]) * units[text[-1]] if text[-1] in units else int(text)


def last_level_cache() -> int:
    """Bytes; 0: unknown."""
    return max((_size(file.read_text()) for file in CPUS.glob("cpu0/cache/index*/size")), default=0)


def memory() -> int:
    """Bytes that this machine and its control group have for us."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        text = pathlib.Path(path).read_text().strip() if pathlib.Path(path).exists() else "max"
        total = min(total, int(text)) if text.isdigit() else total
    return total


def cpu_name() -> str:
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(": ", 1)[1]
    return platform.processor() or platform.machine()


def cpu_features() -> list[str]:
    """Of those that decide how fast attention can be."""
    wanted = {
        "avx2",
        "fma",
        "f16c",
        "avx512f",
        "avx512_vnni",
        "avx512_bf16",
        "avx512_fp16",
        "amx_tile",
        "amx_bf16",
        "amx_int8",
        "amx_fp16",
        "asimd",
        "asimddp",
        "bf16",
        "i8mm",
        "sve",
    }
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("flags", "Features")):
            return sorted(wanted & set(line.split(": ", 1)[1].split()))
    return []


def describe() -> dict:
    return {
        "cpu": cpu_name(),
        "features": cpu_features(),
        "cores_used": cpus(),
        "last_level_cache_bytes": last_level_cache(),
        "memory_bytes": memory(),
        "system": f"{platform.system()} {platform.release()}",
        "libc": " ".join(platform.libc_ver()),
        "python": platform.python_version(),
    }


def cpu_seconds(pid: int) -> float:
    """Time that all threads of a process have run."""
    total = 0
    for thread in pathlib.Path(f"/proc/{pid}/task").iterdir():
        try:
            total += int((thread / "schedstat").read_text().split()[0])
        except (FileNotFoundError, ProcessLookupError):  # it has just ended
            pass
    return total * 1e-9


def running_threads(pid: int) -> int:
    """Threads of a process that run or want to, spinning ones included."""
    running = 0
    for thread in pathlib.Path(f"/proc/{pid}/task").iterdir():
        try:
            running += (thread / "stat").read_text().rsplit(")", 1)[1].split()[0] == "R"
        except (FileNotFoundError, ProcessLookupError):
            pass
    return running


def wait_until_idle(pid: int, limit: float = 1.0) -> bool:
    """Waits until no thread of a process runs, twice in a row; false if that took longer than `limit` seconds."""
    end = time.monotonic() + limit
    quiet = 0
    while quiet < 2:
        quiet = 0 if running_threads(pid) else quiet + 1
        if time.monotonic() > end:
            return False
        time.sleep(0.001)
    return True


def busy_seconds(of_cpus: list[int]) -> float:
    """Time that these CPUs have spent on anything at all, what other machines on the same host took included."""
    tick = os.sysconf("SC_CLK_TCK")
    total = 0.0
    for line in pathlib.Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in of_cpus:
            user, nice, system, _idle, _iowait, irq, softirq, steal = (int(field) for field in fields[:8])
            total += (user + nice + system + irq + softirq + steal) / tick
    return total
