"""Installed packages beside those that are declared and those that are locked."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from system.doctor.findings import Finding

NAME = "tubelet"
ROOT = Path(__file__).parents[2]
# Packages that a finding names.
NAMED = 6
INSTALL = "make setup"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What this version is made for.

    Attributes:
        python: versions of Python.
        declared: packages with the versions that may be.
        locked: package -> the version that was tested; empty where there is no lock.
    """

    python: str
    declared: tuple[str, ...]
    locked: Mapping[str, str]


def wanted(root: Path = ROOT) -> Wanted:
    """Return what a checkout declares, or what the installed package does."""
    lock = root / "requirements.lock"
    locked = locked_versions(lock.read_text()) if lock.is_file() else {}
    project = root / "pyproject.toml"
    if project.is_file():
        told = tomllib.loads(project.read_text())["project"]
        return Wanted(told["requires-python"], tuple(told["dependencies"]), locked)
    try:
        python = metadata.metadata(NAME)["Requires-Python"] or ""
        return Wanted(python, tuple(metadata.requires(NAME) or ()), locked)
    except metadata.PackageNotFoundError:  # modules alone, copied somewhere
        return Wanted("", (), locked)


def locked_versions(text: str) -> dict[str, str]:
    """Return package -> version of a file of requirements with hashes, for this Python and platform."""
    lines = re.findall(r"^([A-Za-z0-9._-]+(?:\[[^\]]*\])?==[^\\\n]+)", text, re.MULTILINE)
    return {_plain(each.name): str(each.specifier).removeprefix("==") for each in requirements(lines)}


def installed_version(name: str) -> str | None:
    """Return the installed version of a package; None: it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def check_python(wants: Wanted, version: str = sys.version.split(" ", maxsplit=1)[0]) -> Finding:
    """See whether this Python is one of those that are tested."""
    fits = SpecifierSet(wants.python).contains(version, prereleases=True)
    if fits:
        return Finding("environment", "python", "ok", version)
    why = "torch, Ray and decord have no wheels for others, or ones that were never tried here"
    what = f"{version}, this needs {wants.python}"
    return Finding("environment", "python", "error", what, why, "rm -rf .venv && make setup PYTHON=python3.11")


def check_packages(wants: Wanted, installed: Mapping[str, str | None]) -> Finding:
    """Compare the installed packages with the declared ones, and with the lock.

    Args:
        wants: what is declared and locked.
        installed: package, by its plain name -> version; None: it is not installed.
    """
    bad, other = [], []
    needed = requirements(wants.declared)
    for each in needed:
        name = _plain(each.name)
        version, lock = installed.get(name), wants.locked.get(name)
        if version is None:
            bad.append(f"{each.name} is not installed")
        elif not each.specifier.contains(version, prereleases=True):
            bad.append(f"{each.name} is {version}, {each.specifier} is needed")
        elif lock is not None and version.partition("+")[0] != lock.partition("+")[0]:
            other.append(f"{each.name} {version} (locked: {lock})")
    if bad:
        why = "a job would end with an ImportError, or later with an error that names no package"
        return Finding("environment", "packages", "error", _some(bad), why, INSTALL)
    if other:
        why = "the tests ran with the locked versions; Ray's internals, which a stream relies on, change between them"
        return Finding("environment", "packages", "note", _some(other), why, INSTALL)
    locked = ", all as locked" if wants.locked else ""
    return Finding("environment", "packages", "ok", f"{len(needed)} declared packages{locked}")


def requirements(declared: Sequence[str]) -> list[Requirement]:
    """Return the packages that are needed on this platform, without those of extras."""
    found = [Requirement(line) for line in declared]
    return [each for each in found if each.marker is None or each.marker.evaluate({"extra": ""})]


def installed_for(declared: Sequence[str]) -> dict[str, str | None]:
    """Return what is installed of the declared packages."""
    return {_plain(each.name): installed_version(each.name) for each in requirements(declared)}


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _some(texts: Sequence[str]) -> str:
    more = f", and {len(texts) - NAMED} more" if len(texts) > NAMED else ""
    return ", ".join(texts[:NAMED]) + more
