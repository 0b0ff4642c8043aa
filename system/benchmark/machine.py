"""What a figure was measured on."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from system.data.hardware import processor

PACKAGES = ("torch", "torchvision", "ray", "deepspeed", "av", "decord", "opencv-python-headless", "transformers")


def describe(*, device: bool = True) -> dict[str, Any]:
    """Return the machine, its packages and the commit, as plain values; with its GPU if wanted, which imports torch."""
    return {
        "cpu": processor(),
        "cores": cores(),
        "memory_gib": round(_memory_gib(), 1),
        "load": [round(value, 2) for value in os.getloadavg()],
        "device": device_name() if device else None,
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "commit": _commit(),
    }


def told(machine: dict[str, Any]) -> str:
    """Return a machine in one line."""
    device = f", {machine['device']}" if machine["device"] else ", no GPU"
    versions = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']:g} GiB{device}; load"
        f" {machine['load'][0]:g}; Python {machine['python']}, {versions}; commit {machine['commit']}"
    )


def cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def device_name() -> str | None:
    """Return the name of the first CUDA device, where there is one."""
    import torch  # noqa: PLC0415  a second, and a machine is also described by what has no use for it

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str:
    """Return the commit of the code, with + where files differ from it; `unknown` outside of a checkout."""
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
