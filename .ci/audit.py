"""Ask whether locked packages have known advisories: `python .ci/audit.py`, or `make audit`.

Exit code 1 if one has and .ci/advisories.txt does not say why it does not apply, or if the service knows none of them.
Where no service that knows advisories can be asked, it says NOT AUDITED and why, and exits with 0. With
AUDIT_REQUIRED=1 in the environment it then exits with 1, and also if the service does not know one of the packages.

pip-audit asks. By itself it says "no known vulnerabilities" of packages that a service does not know at all, as a
mirror of the index may not: so a service is first asked about a package whose advisory everybody knows.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LOCK, ACCEPTED = ROOT / "requirements.lock", ROOT / ".ci" / "advisories.txt"
# The index's own advisories, and where they come from.
SERVICES = ("pypi", "osv")
# Its advisory of 2020 (CVE-2020-1747: code runs when YAML is loaded) is in every database.
KNOWN = "pyyaml==5.3"
# For all packages, one request each.
TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Advisory:
    """What is known of a locked package.

    Attributes:
        package: `name==version`.
        names: the advisory's, first its main one.
        fixed: versions without it.
        says: its first sentence.
    """

    package: str
    names: tuple[str, ...]
    fixed: tuple[str, ...]
    says: str


@dataclass(frozen=True)
class Answer:
    """What a service said.

    Attributes:
        advisories: of all packages.
        asked: number of packages that it knows.
        skipped: what it does not know, and why.
        problem: why there is no answer at all.
    """

    advisories: tuple[Advisory, ...] = ()
    asked: int = 0
    skipped: tuple[str, ...] = ()
    problem: str = ""


def understood(out: str, err: str) -> Answer:
    """Return what pip-audit's JSON says; its last words where there is none."""
    try:
        found: Mapping[str, Any] = json.loads(out)
    except ValueError:
        lines = [line.strip() for line in err.splitlines() if line.strip()]
        return Answer(problem=lines[-1][:200] if lines else "it said nothing")
    advisories, skipped = [], []
    for each in found["dependencies"]:
        if "skip_reason" in each:
            skipped.append(each["skip_reason"])
            continue
        for one in each["vulns"]:
            names = (one["id"], *one.get("aliases", ()))
            says = re.split(r"(?<=[.!?])\s", " ".join((one.get("description") or "").split()), maxsplit=1)[0]
            package = f"{each['name']}=={each['version']}"
            advisories.append(Advisory(package, names, tuple(one.get("fix_versions", ())), says[:200]))
    return Answer(tuple(advisories), len(found["dependencies"]) - len(skipped), tuple(skipped))


def ask(service: str, requirements: Path) -> Answer:
    """Return what a service says of a file of requirements."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(requirements), "--no-deps", "--disable-pip"]
    command += ["--vulnerability-service", service, "--format", "json", "--progress-spinner", "off", "--desc", "on"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return Answer(problem=f"no answer in {TIMEOUT_S:.0f} s")
    return understood(done.stdout, done.stderr)


def knows(answer: Answer) -> str:
    """Return why an answer about the package that everybody knows is not to be trusted; "" if it is."""
    if answer.problem or answer.skipped:
        return answer.problem or answer.skipped[0]
    return "" if answer.advisories else f"it knows {KNOWN} and not its advisory"


def accepted(text: str) -> dict[tuple[str, str], str]:
    """Return (advisory, name==version) -> date and reason.

    Raises:
        ValueError: if a line has not all four.
    """
    out = {}
    for line in text.splitlines():
        words = line.split("#")[0].split(maxsplit=3)
        if not words:
            continue
        if len(words) != 4 or "==" not in words[1] or not re.fullmatch(r"\d{4}-\d\d-\d\d", words[2]):
            raise ValueError(f"{ACCEPTED.name}: a line is ADVISORY name==version YYYY-MM-DD reason, got: {line}")
        out[words[0], words[1]] = f"{words[2]}: {words[3]}"
    return out


def report(answer: Answer, argued: Mapping[tuple[str, str], str], *, required: bool = False) -> tuple[list[str], bool]:
    """Return the lines about a lock, and whether it passes: nothing is open, and some of it, or all, was audited."""
    lines, open_ones, used = [], 0, set()
    for each in answer.advisories:
        key = next(((name, each.package) for name in each.names if (name, each.package) in argued), None)
        used.add(key)
        open_ones += key is None
        told = f"does not apply ({argued[key]})" if key else f"fixed in {', '.join(each.fixed) or 'no version'}"
        lines.append(f"{each.package}: {' '.join(each.names)}: {told}: {each.says}")
    lines += [f"not audited: {each}" for each in answer.skipped]
    lines += [f"{name} of {package} is not reported any more: take it out" for name, package in argued.keys() - used]
    lines.append(f"audited: {answer.asked} packages, {len(answer.advisories)} advisories, {open_ones} open")
    return lines, answer.asked > 0 and not open_ones and not (required and answer.skipped)


def main(environment: Mapping[str, str], services: Sequence[str] = SERVICES) -> int:
    """Audit the lock and return the exit code."""
    argued = accepted(ACCEPTED.read_text())
    why, required = [], environment.get("AUDIT_REQUIRED") == "1"
    with tempfile.TemporaryDirectory() as folder:
        known = Path(folder) / "known.txt"
        known.write_text(KNOWN + "\n")
        for service in services:
            problem = knows(ask(service, known))
            answer = Answer(problem=problem) if problem else ask(service, LOCK)
            if answer.problem:
                why.append(f"{service}: {answer.problem}")
                continue
            lines, fine = report(answer, argued, required=required)
            print("\n".join(lines), flush=True)
            return 0 if fine else 1
    print("NOT AUDITED: no service that knows advisories answered\n  " + "\n  ".join(why), flush=True)
    return 1 if required else 0


if __name__ == "__main__":
    sys.exit(main(os.environ))
