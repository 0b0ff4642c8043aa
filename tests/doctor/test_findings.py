from __future__ import annotations

import pytest

from jobs.terminal import bare
from system.doctor.findings import Finding, exit_code, told

OK = Finding("environment", "python", "ok", "3.11.7")
WARNING = Finding("environment", "disk", "warning", "/tmp: 1 of 9 GiB free", "Ray spills " * 20, "export " + "X" * 90)
ERROR = Finding("data", "readable", "error", "9 of 9 cannot be read\nfirst.mp4: no container", "no run", "mend them")


def test_findings_are_told_part_by_part_with_reason_and_command() -> None:
    lines = told([OK, WARNING, ERROR], 80)
    assert [line for line in lines if not line.startswith(" ")] == [
        "environment",
        "",
        "data",
        "",
        "1 error, 1 warning, 1 ok: mend the errors before a run",
    ]
    text = "\n".join(lines)
    assert "  ok       python         3.11.7\n" in text
    assert "  ERROR    readable       9 of 9 cannot be read\n" in text
    assert f"fix: {WARNING.fix}" in text, "a command is never broken"
    assert [bare(line) for line in told([OK, WARNING, ERROR], 80, colours=True)] == lines


@pytest.mark.parametrize("width", [40, 80, 120])
def test_but_for_commands_no_line_is_wider_than_the_terminal(width: int) -> None:
    lines = told([OK, WARNING, ERROR], width)
    assert max(len(line) for line in lines[:-1] if "fix: " not in line) <= max(width, 48)


def test_only_what_would_end_a_run_fails() -> None:
    assert exit_code([OK, WARNING]) == 0
    assert exit_code([OK, WARNING, ERROR]) == 1
    assert told([OK], 80)[-1] == "all well: 1 checks"
    assert told([OK, WARNING], 80)[-1] == "1 warning, 1 ok: a run would start"


def test_no_name_reaches_the_terminal_as_anything_but_text() -> None:
    name = "a\x1b[2J\x9b\r\u202egpm.mp4\ud800"
    hostile = Finding("data", "readable", "error", f"1 bad\n{name}: {name}", name, f"rm {name}\nb")
    lines = told([hostile], 200, colours=False)
    assert all(line.isprintable() for line in lines)
    assert sum("a\\x1b[2J" in line for line in lines) == 3
    assert lines[-3].endswith("\\ud800\\nb"), "a command is one line"
    assert "fernsehen-\u00fc.mp4" in "\n".join(told([Finding("data", "x", "ok", "fernsehen-\u00fc.mp4")], 80))
