from __future__ import annotations

from pathlib import Path

import pytest

from system.data import hardware
from system.data.hardware import Hardware, gpu_driver, hardware_of, processor

CLOSED = (
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\nGCC version:  gcc 12\n"
)
OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.10  Release Build  (a@b)  2025\nGCC: 13\n"


@pytest.mark.parametrize(
    ("text", "version"), [(CLOSED, "535.104.05"), (OPEN, "570.86.10"), ("GCC version: 12.2\n", "")]
)
def test_the_version_of_a_driver_is_that_of_its_kernel_module(
    text: str, version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "version").write_text(text)
    monkeypatch.setattr(hardware, "MODULE", tmp_path / "version")
    assert gpu_driver() == version
    assert hardware_of("NVIDIA H200", "2.11.0").driver == version
    assert hardware_of("", "2.11.0").driver == ""  # it computes on processor cores, whatever the machine has


def test_a_machine_that_says_nothing_of_itself_has_hardware_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "MODULE", tmp_path / "none")
    monkeypatch.setattr(hardware, "PROCESSORS", tmp_path / "none")
    assert hardware_of("NVIDIA H200", "2.11.0") == Hardware("NVIDIA H200", "", "2.11.0")
    assert processor()


def test_a_processor_has_the_name_that_the_kernel_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: AMD EPYC: 9654\nprocessor\t: 1\nmodel name\t: x\n")
    monkeypatch.setattr(hardware, "PROCESSORS", tmp_path / "cpuinfo")
    assert hardware_of("", "2.11.0").device == "AMD EPYC: 9654"


def test_a_version_that_is_more_than_text_becomes_text() -> None:
    class Version(str):
        __slots__ = ()

    assert type(hardware_of("a", Version("2.11.0")).torch) is str
