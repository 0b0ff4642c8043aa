"""Processes of their own for what is measured of a process: its start, its memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import system
from system.errors import SystemFault

REPOSITORY = Path(system.__file__).parents[1]


def python(*arguments: str) -> str:
    """Run this Python with our code on its path, and return what it wrote on standard output.

    Raises:
        SystemFault: if it ends with an error.
    """
    places = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemFault(f"python {' '.join(arguments)} ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    return done.stdout
