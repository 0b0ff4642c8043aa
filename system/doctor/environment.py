"""This machine: libraries, GPU, memory for Ray's store, disks, byte-compiled packages, limits.

Each check is a function of what was measured; `environment` measures.
"""

from __future__ import annotations

import importlib.util
import os
import resource
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from system.doctor.findings import Finding
from system.doctor.libraries import Loaded, ffmpeg_of, load_modules, load_torch
from system.doctor.packages import (
    check_packages,
    check_python,
    installed_for,
    installed_version,
    wanted,
)

# Decoder -> module that it imports; `data.decoder=auto` needs the first alone.
DECODERS = {"pyav": "av", "decord": "decord", "torchcodec": "torchcodec.decoders"}
# Ray keeps its store in shared memory; of less than this a stream of 224 px clips fills it at once.
LEAST_SHM_BYTES = 2 << 30
# Ray stops writing to a disk that is fuller than this, and with it whatever has to spill.
FULL = 0.95
LEAST_DISK_BYTES = 10 << 30
# Open files of a head of a few machines, as Ray advises.
LEAST_FILES = 8192
LEAST_PROCESSES = 4096
# Packages that each worker imports, and the share of their files from which on one is called byte-compiled.
IMPORTED = ("torch", "ray", "pandas", "deepspeed")
COMPILED = 0.9
PART = "environment"


def environment(folders: Sequence[str]) -> list[Finding]:
    """Look at this machine.

    Args:
        folders: local ones that a run writes to, besides the one for temporary files.
    """
    wants = wanted()
    modules = {name: module for name, module in DECODERS.items() if _installed(module)}
    with ThreadPoolExecutor(1) as pool:
        torch = pool.submit(load_torch)
        decoders = dict(zip(modules, load_modules(list(modules.values())), strict=True))
        gpus = cuda_gpus()
    return [
        check_python(wants),
        check_packages(wants, installed_for(wants.declared)),
        *check_decoders(decoders, {name: installed_version(name) for name in ("av", "decord", "torchcodec")}),
        check_gpu(gpus, torch.result()),
        check_shared_memory(Path("/dev/shm"), _memory_bytes()),
        *check_disks([tempfile.gettempdir(), *folders]),
        check_bytecode(os.environ, {name: compiled_share(name) for name in IMPORTED if _installed(name)}),
        check_limits(resource.getrlimit(resource.RLIMIT_NOFILE), resource.getrlimit(resource.RLIMIT_NPROC)[0]),
    ]


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module.split(".", maxsplit=1)[0]) is not None


def check_decoders(loaded: Mapping[str, Loaded], versions: Mapping[str, str | None]) -> list[Finding]:
    """See which decoders can be loaded, and which FFmpeg each of them brings or finds.

    Args:
        loaded: installed decoder -> what became of loading it.
        versions: package -> its version.
    """
    found = []
    for name in DECODERS:
        package = "av" if name == "pyav" else name
        if name in loaded and not loaded[name].why_not:
            ffmpeg = ffmpeg_of(loaded[name].values["mapped"]) or "its own FFmpeg, in one piece with it"
            found.append(Finding(PART, name, "ok", f"{versions.get(package) or '?'} with {ffmpeg}"))
            continue
        why_not = loaded[name].why_not if name in loaded else "not installed"
        found.append(_missing_decoder(name, why_not))
    return found


def _missing_decoder(name: str, why_not: str) -> Finding:
    what = why_not if why_not == "not installed" else f"cannot be loaded: {why_not}"
    if name == "pyav":
        return Finding(PART, name, "error", what, "every video is opened with it", "pip install 'av>=16'")
    if name == "decord":
        why = "it stands in for codecs that PyAV does not know; there are few"
        return Finding(PART, name, "note", what, why, "pip install 'decord>=0.6.0' (Linux on x86-64 alone)")
    if why_not == "not installed":
        return Finding(PART, name, "ok", "not installed, and not needed: an extra")
    why = "it is for data.decoder=torchcodec alone, and takes the FFmpeg libraries of the system (4 to 8)"
    fix = "pip install 'tubelet[torchcodec]' && apt-get install ffmpeg"
    return Finding(PART, name, "note", what, why, fix)


def cuda_gpus() -> list[str] | None:
    """Return the GPUs that the driver lists; None: there is no NVIDIA driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    command = [program, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except subprocess.TimeoutExpired:
        return []
    return done.stdout.strip().splitlines() if done.returncode == 0 else []


def check_gpu(listed: Sequence[str] | None, torch: Loaded) -> Finding:
    """See whether torch sees the GPUs that the driver lists.

    Args:
        listed: by the driver; None: there is none.
        torch: what it says.
    """
    if torch.why_not:
        fix = "make setup"
        return Finding(PART, "gpu", "error", f"torch cannot be loaded: {torch.why_not}", "every trainer needs it", fix)
    names, built = torch.values["names"], torch.values["built"]
    if names:
        memory = min(torch.values["memory"]) / 2**30
        what = f"{len(names)} x {names[0]}, {memory:.0f} GiB, CUDA {built} of torch {torch.values['version']}"
        return Finding(PART, "gpu", "ok", what)
    if listed:
        what = f"the driver lists {len(listed)} ({listed[0]}), torch {torch.values['version']} sees none"
        why = "trainers would run on CPU cores, a hundred times slower"
        cpu_only = built is None
        fix = (
            "pip install torch torchvision --index-url https://download.pytorch.org/whl/cu128"
            if cpu_only
            else "nvidia-smi, then a driver for this CUDA; in a container: --gpus all"
        )
        return Finding(PART, "gpu", "error", f"{what} (built for {built or 'CPUs alone'})", why, fix)
    what = "none, " + ("and the driver lists none" if listed == [] else "no NVIDIA driver")
    why = "the smoke recipe runs on CPU cores; a real one would take months"
    return Finding(
        PART, "gpu", "note", what, why, "run the doctor on a machine of the cluster, or with --cluster ADDRESS"
    )


def check_shared_memory(place: Path, memory_bytes: int) -> Finding:
    """See whether Ray's object store has room in shared memory."""
    try:
        space = shutil.disk_usage(place)
    except OSError:
        what = f"there is no {place}"
        why = "Ray puts its object store on a disk then, and blocks of frames move at a disk's speed"
        return Finding(PART, "shared memory", "note", what, why, "run on Linux")
    free, total = (f"{value / 2**30:.1f}" for value in (space.free, space.total))
    what = f"{free} of {total} GiB free in {place}, on a machine with {memory_bytes / 2**30:.0f} GiB of memory"
    if space.free < LEAST_SHM_BYTES:
        why = "Ray's object store lies there; where it has no room Ray puts it on a disk, and the stream crawls"
        gib = max(8, memory_bytes // 3 // 2**30)
        return Finding(
            PART, "shared memory", "warning", what, why, f"docker run --shm-size={gib}g ..., or mount it larger"
        )
    return Finding(PART, "shared memory", "ok", what)


def check_disks(folders: Sequence[str]) -> list[Finding]:
    """See whether the disks have room, each of them once."""
    by_disk: dict[int, str] = {}
    for folder in folders:
        there = Path(folder).expanduser().absolute()
        while not _seen(there):
            there = there.parent
        by_disk.setdefault(there.stat().st_dev, str(there))
    return [check_disk(place, *shutil.disk_usage(place)) for place in by_disk.values()]


def _seen(place: Path) -> bool:
    try:
        return place.exists()
    except OSError:  # below a folder that is closed to this user; or no folder could have this name
        return False


def check_disk(place: str, total: int, used: int, free: int) -> Finding:
    """See whether a disk has room.

    Args:
        place: a folder on it.
        total: bytes.
        used: bytes.
        free: bytes.
    """
    what = f"{place}: {free / 2**30:.0f} of {total / 2**30:.0f} GiB free"
    share = used / max(1, used + free)
    if share > FULL:
        why = f"Ray refuses to write to a disk that is more than {FULL:.0%} full: its tasks fail when memory runs out"
        return Finding(
            PART, "disk", "error", what, why, f"du -xh --max-depth=2 {place} | sort -h | tail; delete or add"
        )
    if free < LEAST_DISK_BYTES:
        why = "Ray's logs, what it spills, and checkpoints on their way to a bucket lie there"
        return Finding(
            PART, "disk", "warning", what, why, "export TMPDIR=/a/larger/disk (ray start --temp-dir=... too)"
        )
    return Finding(PART, "disk", "ok", what)


def compiled_share(package: str) -> float:
    """Return the share of a package's files that are byte-compiled for this Python."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.origin:
        return 1.0
    files = list(Path(spec.origin).parent.rglob("*.py"))
    return sum(Path(importlib.util.cache_from_source(str(file))).exists() for file in files) / max(1, len(files))


def check_bytecode(environment: Mapping[str, str], compiled: Mapping[str, float]) -> Finding:
    """See whether workers find their packages byte-compiled, or may at least leave them so.

    Args:
        environment: of this process, which jobs inherit.
        compiled: package -> share of its files that are.
    """
    slow = [name for name, share in compiled.items() if share < COMPILED]
    forbidden = bool(environment.get("PYTHONDONTWRITEBYTECODE"))
    fix = "; ".join(
        [
            *(["unset PYTHONDONTWRITEBYTECODE"] if forbidden else []),
            *([f"{sys.executable} -m compileall -q -j 0 {sysconfig.get_path('purelib')}"] if slow else []),
        ]
    )
    if slow:
        what = f"{', '.join(slow)}: not byte-compiled" + (", and PYTHONDONTWRITEBYTECODE is set" if forbidden else "")
        why = "each worker compiles them anew at its start: 12 s of a core in place of 5, at every restart"
        return Finding(PART, "bytecode", "warning" if forbidden else "note", what, why, fix)
    if forbidden:
        why = (
            "packages that are installed or changed from now on stay uncompiled: 12 s of a core for each worker's start"
        )
        return Finding(PART, "bytecode", "note", "compiled, but PYTHONDONTWRITEBYTECODE is set", why, fix)
    return Finding(PART, "bytecode", "ok", f"{', '.join(compiled)}: byte-compiled")


def check_limits(files: tuple[int, int], processes: int) -> Finding:
    """See whether a Ray node may open as many files and start as many processes as it does.

    Args:
        files: soft and hard limit of open files of a process.
        processes: soft limit of the user's processes and threads; -1: none.
    """
    soft, hard = (sys.maxsize if each == resource.RLIM_INFINITY else each for each in files)
    raised = soft < LEAST_FILES <= hard  # by Ray itself, up to the hard limit
    what = f"{_limit(soft)} open files{f' (Ray raises that to {_limit(hard)})' if raised else ''}"
    what += f", {_limit(processes)} processes"
    if hard < LEAST_FILES:
        why = "Ray raises the number of open files to the hard limit, and ends with `Too many open files` beyond it"
        fix = "raise nofile in /etc/security/limits.conf; in a container: docker run --ulimit nofile=65536"
        return Finding(PART, "limits", "warning", what, why, fix)
    if 0 <= processes < LEAST_PROCESSES:
        why = "a Ray node has dozens of processes with dozens of threads each"
        return Finding(PART, "limits", "warning", what, why, "ulimit -u 65536, or raise nproc in limits.conf")
    return Finding(PART, "limits", "ok", what)


def _limit(value: int) -> str:
    return "unlimited" if value in (-1, resource.RLIM_INFINITY, sys.maxsize) else str(value)


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
