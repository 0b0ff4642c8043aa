"""The process that opens a pickled file of weights: `python -m system.models.pickles SOURCE TARGET`.

PyTorch's `weights_only` reading runs no code of the file; it is done apart all the same, without credentials, and only
tensors leave this process, as safetensors in TARGET. The last line of the output is JSON: `error`, or what was found.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import system
from system.errors import WeightsError

# What the child sees of its parent's environment: nothing that grants access to anything.
_KEPT_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "HOME", "LANG", "TMPDIR", "VIRTUAL_ENV")
# Seconds; 4 GB of weights and Adam moments take about ten from a disk.
_DEADLINE_S = 1800
# Where the released code keeps the weights: pre-training, and fine-tuning with DeepSpeed.
_KEYS = ("model", "module")


def unpickle(source: Path, target: Path, where: str) -> None:
    """Write the tensors of a pickled file to a safetensors file, in a process of its own.

    Args:
        source: the file.
        target: the file to write.
        where: the source as the user named it, for messages.

    Raises:
        WeightsError: if it is damaged, holds no weights, or needs more than tensors and plain values.
    """
    environment = {key: os.environ[key] for key in _KEPT_ENVIRONMENT if key in os.environ}
    environment |= {"PYTHONPATH": str(Path(system.__file__).parents[1]), "CUDA_VISIBLE_DEVICES": ""}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "system.models.pickles", str(source), str(target)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=_DEADLINE_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise WeightsError(f"{where} was not read within {_DEADLINE_S} s; is it a file of weights?") from error
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise WeightsError(f"{where}: the process that reads it ended: {last[:300]}")
    problem = json.loads(lines[-1])["error"]
    if problem:
        raise WeightsError(f"{where} {problem}")


def tensors_in(source: Path) -> tuple[dict[str, Any], str]:
    """Return (tensors, what is wrong) of a pickled file. What the child does, and nobody else outside of tests."""
    import torch  # noqa: PLC0415  the parent's side needs none of it
    from torch import serialization  # noqa: PLC0415

    archive = zipfile.is_zipfile(source)
    # The released code keeps its arguments in the file. A Namespace only holds values, so it is let through.
    with serialization.safe_globals([argparse.Namespace]):
        try:
            needs = serialization.get_unsafe_globals_in_checkpoint(source) if archive else []
            if needs:
                return {}, _unsafe(", ".join(sorted(needs)))
            loaded = torch.load(source, map_location="cpu", weights_only=True, mmap=archive)
        except Exception as error:  # noqa: BLE001  whatever a damaged file provokes
            text = " ".join(str(error).split())
            if "GLOBAL" in text:
                return {}, _unsafe(text.partition("GLOBAL ")[2].split(" ")[0])
            return {}, f"is damaged, cut off, or no file of PyTorch: {type(error).__name__}: {text[:200]}"
    state = _weights_in(loaded)
    if state is None:
        names = ", ".join(map(str, list(loaded)[:5])) if isinstance(loaded, Mapping) else type(loaded).__name__
        return {}, f"holds no weights: under `model` or `module`, or bare, tensors by name are wanted, it has {names}"
    wrong = [str(name) for name, value in state.items() if not isinstance(value, torch.Tensor)]
    if wrong:
        return {}, f"has something else than tensors among its weights: {', '.join(wrong[:4])}"
    return {str(name): value.detach().contiguous().clone() for name, value in state.items()}, ""


def _weights_in(loaded: Any) -> Mapping[str, Any] | None:
    import torch  # noqa: PLC0415

    if not isinstance(loaded, Mapping):
        return None
    for key in _KEYS:
        if isinstance(loaded.get(key), Mapping):
            return loaded[key] or None
    return loaded if any(isinstance(value, torch.Tensor) for value in loaded.values()) else None


def _unsafe(needs: str) -> str:
    return (
        f"is a pickle that needs more than tensors and plain values, and could run code: {needs}. If you trust it, load"
        " it elsewhere with weights_only=False and keep its tensors alone: torch.save({'model': loaded['model']}, ...)"
    )


def main(source: Path, target: Path) -> None:
    """Read one file."""
    from safetensors.torch import save_file  # noqa: PLC0415

    tensors, problem = tensors_in(source)
    if not problem:
        save_file(tensors, target)
    sys.stdout.write(json.dumps({"error": problem}) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
