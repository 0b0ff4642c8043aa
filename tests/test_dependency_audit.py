"""An audit of the lock fails for an advisory, says so where nobody could be asked, and never passes in silence."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from types import ModuleType
from typing import Any

import pytest

from tests.conftest import REPOSITORY

YAML = {
    "id": "PYSEC-2020-96",
    "aliases": ["CVE-2020-1747"],
    "fix_versions": ["5.3.1"],
    "description": "Code runs. More.",
}


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dependency_audit", REPOSITORY / ".ci" / "audit.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["dependency_audit"] = module
    spec.loader.exec_module(module)
    return module


def said(*dependencies: dict[str, Any]) -> str:
    return json.dumps({"dependencies": list(dependencies), "fixes": []})


def package(name: str, *vulns: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "version": "1.0", "vulns": list(vulns)}


def test_an_advisory_that_nobody_argued_fails(audit: ModuleType) -> None:
    answer = audit.understood(said(package("a", YAML), package("b")), "")
    lines, fine = audit.report(answer, {})
    assert not fine
    assert lines == [
        "a==1.0: PYSEC-2020-96 CVE-2020-1747: fixed in 5.3.1: Code runs.",
        "audited: 2 packages, 1 advisories, 1 open",
    ]


@pytest.mark.parametrize(("line", "fine"), [("CVE-2020-1747 a==1.0", True), ("PYSEC-2020-96 a==0.9", False)])
def test_an_advisory_is_argued_by_any_of_its_names_and_for_one_version(
    audit: ModuleType, line: str, *, fine: bool
) -> None:
    argued = audit.accepted(f"# why\n{line} 2026-11-22 we load with a SafeLoader\n")
    lines, passed = audit.report(audit.understood(said(package("a", YAML)), ""), argued)
    assert passed is fine
    assert any("2026-11-22: we load with a SafeLoader" in each for each in lines) is fine
    assert any("not reported any more" in each for each in lines) is not fine


@pytest.mark.parametrize(
    "line", ["CVE-2020-1747", "CVE-1 a 2026-11-22 because", "CVE-1 a==1 soon because", "x a==1 2026-11-22"]
)
def test_a_line_without_version_date_or_reason_is_refused(audit: ModuleType, line: str) -> None:
    with pytest.raises(ValueError, match="YYYY-MM-DD"):
        audit.accepted(line)


def test_the_lines_of_the_repository_are_of_packages_that_are_locked(audit: ModuleType) -> None:
    lock = audit.LOCK.read_text()
    for _, locked in audit.accepted(audit.ACCEPTED.read_text()):
        assert f"\n{locked} " in f"\n{lock}"


def test_what_a_service_does_not_know_is_told_and_not_counted(audit: ModuleType) -> None:
    answer = audit.understood(said(package("a"), {"name": "b", "skip_reason": "b was not found"}), "")
    lines, fine = audit.report(answer, {})
    assert fine
    assert lines == ["not audited: b was not found", "audited: 1 packages, 0 advisories, 0 open"]
    assert audit.report(answer, {}, required=True) == (lines, False)


def test_an_audit_of_nothing_fails(audit: ModuleType) -> None:
    answer = audit.understood(said({"name": "b", "skip_reason": "b was not found"}), "")
    assert audit.report(answer, {}) == (
        ["not audited: b was not found", "audited: 0 packages, 0 advisories, 0 open"],
        False,
    )


@pytest.mark.parametrize(
    ("out", "err", "why"),
    [
        (said({"name": "pyyaml", "skip_reason": "not found on the index"}), "", "not found"),
        (said(package("pyyaml")), "", "not its advisory"),
        ("", "Traceback\n  there\nConnectionError: no such host\n", "no such host"),
        ("", "", "said nothing"),
    ],
)
def test_a_service_that_does_not_know_what_everybody_knows_is_not_believed(
    audit: ModuleType, out: str, err: str, why: str
) -> None:
    assert why in audit.knows(audit.understood(out, err))
    assert audit.knows(audit.understood(said(package("pyyaml", YAML)), "")) == ""


def test_an_audit_that_nobody_answers_says_so_and_fails_where_it_is_required(
    audit: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit.main({}, services=()) == 0
    assert "NOT AUDITED" in capsys.readouterr().out
    assert audit.main({"AUDIT_REQUIRED": "1"}, services=()) == 1


def test_every_change_is_audited_and_every_package_has_a_hash() -> None:
    assert "make audit" in (REPOSITORY / ".ci" / "run").read_text()
    assert "\naudit: setup\n\t$(PY) .ci/audit.py\n" in (REPOSITORY / "Makefile").read_text()
    packages = re.split(r"\n(?=\S)", (REPOSITORY / "requirements.lock").read_text().strip())
    assert len(packages) > 50
    assert all("--hash=sha256:" in each for each in packages)


def test_pip_audit_is_locked_with_the_rest() -> None:
    assert re.search(r"^pip-audit==", (REPOSITORY / "requirements.lock").read_text(), re.MULTILINE)
