"""What a process computes with, for whoever reads later where a figure came from. Needs neither Ray nor torch."""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass
from pathlib import Path

PROCESSORS = Path("/proc/cpuinfo")
# What NVIDIA's kernel module says of itself, inside of containers too; `nvidia-smi` takes seconds to say the same.
MODULE = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True, slots=True)
class Hardware:
    """What a rank computes with.

    Attributes:
        device: name of its GPU; of the processor where it computes on one.
        driver: version of the GPU's driver; "" without a GPU, or where it does not say.
        torch: its version, with that of CUDA.
    """

    device: str
    driver: str
    torch: str


def hardware_of(gpu: str, torch: str) -> Hardware:
    """Return what this process computes with.

    Args:
        gpu: name of its GPU, as torch says it; "" if it computes on processor cores.
        torch: version of torch.
    """
    # A plain text: torch's own kind would be unpickled with torch alone, which who reads it does without.
    return Hardware(gpu or processor(), gpu_driver() if gpu else "", str(torch))


def processor() -> str:
    """Return the name of this machine's processor."""
    for line in _text(PROCESSORS).splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def gpu_driver() -> str:
    """Return the version of NVIDIA's driver; "" if there is none, or it does not say."""
    found = re.search(r"^NVRM version:.*?\s(\d+(?:\.\d+)+)\s", _text(MODULE), re.MULTILINE)
    return found[1] if found else ""


def _text(place: Path) -> str:
    try:
        return place.read_text(errors="replace")
    except OSError:
        return ""
