"""Where a run lies, by how a person names it. Needs Python alone; past.py reads what is there."""

from __future__ import annotations

from system import storage


def run_folder(run: str, under: str = "./runs") -> str:
    """Return the URI of a run that is given by its folder, or by its name under a storage."""
    return storage.absolute(run if "/" in run else storage.join(under, run)).rstrip("/")
