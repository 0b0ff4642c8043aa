"""What a result file says about where it comes from: the commit, and a digest of the weights."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor


def commit() -> str:
    """Return the commit that is checked out, or "no commit"."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return "no commit"
    return done.stdout.strip() or "no commit"


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of weights by name, the same whatever file they come from: names, shapes, float32 values."""
    told = hashlib.sha256()
    for name in sorted(tensors):
        values = tensors[name].detach().float().cpu().contiguous()
        told.update(f"{name} {list(values.shape)}\n".encode())
        told.update(values.numpy().tobytes())
    return told.hexdigest()
