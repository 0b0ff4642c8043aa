"""What a library says of itself when it is loaded, each in a process of its own.

Two FFmpegs in one process disturb each other, and a library that does not fit the machine may end the process.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

# Longest wait for a library, seconds: torch takes three from a warm disk.
LOAD_S = 120.0
# Major version of libavcodec -> of the FFmpeg that it is of.
FFMPEG = {58: 4, 59: 5, 60: 6, 61: 7, 62: 8}

# Names what was mapped into the process, since not every library knows which FFmpeg it has found.
_MAPPED = """
import importlib, json, sys
module = importlib.import_module(sys.argv[1])
with open("/proc/self/maps") as file:
    mapped = sorted({line.rsplit("/", 1)[-1].strip() for line in file if "libavcodec" in line})
print("\\n" + json.dumps({"mapped": mapped}))
"""
_TORCH = """
import json, torch
cuda = torch.cuda.is_available()
names = [torch.cuda.get_device_name(each) for each in range(torch.cuda.device_count())] if cuda else []
memory = [torch.cuda.get_device_properties(each).total_memory for each in range(len(names))]
print("\\n" + json.dumps({"version": torch.__version__, "built": torch.version.cuda, "names": names, "memory": memory}))
"""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What became of loading a library.

    Attributes:
        values: what it says of itself; empty if it could not be loaded.
        why_not: the last line of its error; "" if it was loaded.
    """

    values: dict[str, Any] = field(default_factory=dict)
    why_not: str = ""


def load(script: str, *arguments: str) -> Loaded:
    """Run a script that loads a library and prints an object as its last line."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=LOAD_S, check=False
        )
    except subprocess.TimeoutExpired:
        return Loaded(why_not=f"it was not loaded after {LOAD_S:.0f} s")
    if done.returncode < 0:
        return Loaded(why_not=f"its process was ended by {signal.Signals(-done.returncode).name}")
    if done.returncode:
        return Loaded(why_not=(done.stderr.strip().splitlines() or ["it says nothing"])[-1][:300])
    return Loaded(json.loads(done.stdout.strip().splitlines()[-1]))


def load_torch() -> Loaded:
    """Return the version of torch, the CUDA that it was built with, and the GPUs that it sees."""
    return load(_TORCH)


def load_modules(modules: Sequence[str]) -> list[Loaded]:
    """Return for each module which libavcodec files its process had loaded, at the same time."""
    if not modules:
        return []
    with ThreadPoolExecutor(len(modules)) as pool:
        return list(pool.map(lambda module: load(_MAPPED, module), modules))


def ffmpeg_of(mapped: Sequence[str]) -> str:
    """Return which FFmpeg files of libavcodec are of: `FFmpeg 8 (libavcodec 62.11.100)`; "" if none was loaded."""
    for name in mapped:
        found = re.search(r"libavcodec[^/]*?\.so\.(\d+)([.\d]*)", name)
        if found:
            major = int(found[1])
            return f"FFmpeg {FFMPEG.get(major, 'of an unknown version')} (libavcodec {major}{found[2]})"
    return ""
