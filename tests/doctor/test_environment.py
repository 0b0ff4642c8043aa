from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from system.doctor.environment import (
    check_bytecode,
    check_decoders,
    check_disk,
    check_disks,
    check_gpu,
    check_limits,
    check_shared_memory,
    compiled_share,
)
from system.doctor.findings import Severity
from system.doctor.libraries import Loaded, ffmpeg_of, load, load_modules
from system.doctor.packages import Wanted, check_packages, check_python, locked_versions, wanted

GIB = 2**30


def test_a_library_is_loaded_in_a_process_of_its_own_and_its_end_is_told() -> None:
    assert load("print('noise'); print('{\"a\": 1}')") == Loaded({"a": 1})
    assert load("import nothing_like_this").why_not == "ModuleNotFoundError: No module named 'nothing_like_this'"
    assert load("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)").why_not == (
        "its process was ended by SIGSEGV"
    )
    assert load("raise SystemExit(3)").why_not == "it says nothing"


def test_which_ffmpeg_pyav_brings_is_read_from_its_process() -> None:
    (found,) = load_modules(["av"])
    assert "av" not in sys.modules or not found.why_not
    assert ffmpeg_of(found.values["mapped"]).startswith("FFmpeg ")


@pytest.mark.parametrize(
    ("mapped", "says"),
    [
        (["libavcodec-5d51e7b8.so.62.11.100"], "FFmpeg 8 (libavcodec 62.11.100)"),
        (["libavcodec.so.58"], "FFmpeg 4 (libavcodec 58)"),
        (["libavcodec.so.99"], "FFmpeg of an unknown version (libavcodec 99)"),
        ([], ""),
    ],
)
def test_ffmpegs_are_named_by_their_files(mapped: list[str], says: str) -> None:
    assert ffmpeg_of(mapped) == says


def test_a_decoder_that_cannot_be_loaded_matters_if_it_is_the_one_that_opens_videos() -> None:
    broken = Loaded(why_not="OSError: libavutil.so.60: cannot open shared object file")
    found = {each.check: each for each in check_decoders({"pyav": broken, "torchcodec": broken}, {})}
    assert (found["pyav"].severity, found["torchcodec"].severity) == ("error", "note")
    assert "libavutil.so.60" in found["torchcodec"].what
    assert (found["decord"].severity, found["decord"].what) == ("note", "not installed")
    good = {"pyav": Loaded({"mapped": ["libavcodec.so.62"]}), "decord": Loaded({"mapped": []})}
    told = [(each.severity, each.what) for each in check_decoders(good, {"av": "18.1", "decord": "0.6.0"})]
    assert told == [
        ("ok", "18.1 with FFmpeg 8 (libavcodec 62)"),
        ("ok", "0.6.0 with its own FFmpeg, in one piece with it"),
        ("ok", "not installed, and not needed: an extra"),
    ]


TORCH: dict[str, Any] = {"version": "2.15.0", "built": None, "names": [], "memory": []}


@pytest.mark.parametrize(
    ("listed", "torch", "severity", "says"),
    [
        (None, Loaded(TORCH), "note", "no NVIDIA driver"),
        ([], Loaded(TORCH), "note", "the driver lists none"),
        (["H100, 550"], Loaded(TORCH), "error", "sees none (built for CPUs alone)"),
        (["H100, 550"], Loaded({**TORCH, "built": "13.0"}), "error", "sees none (built for 13.0)"),
        (
            ["H100"],
            Loaded({**TORCH, "names": ["H100"], "memory": [80 * GIB], "built": "13.0"}),
            "ok",
            "1 x H100, 80 GiB",
        ),
        (None, Loaded(why_not="OSError: libtorch.so"), "error", "torch cannot be loaded: OSError: libtorch.so"),
    ],
)
def test_gpus_of_the_driver_that_torch_does_not_see_are_an_error(
    listed: list[str] | None, torch: Loaded, severity: Severity, says: str
) -> None:
    found = check_gpu(listed, torch)
    assert found.severity == severity
    assert says in found.what
    assert bool(found.fix) == (severity != "ok")


def test_a_store_without_room_in_shared_memory_is_a_warning_with_a_size(tmp_path: Path) -> None:
    import shutil

    free = shutil.disk_usage(tmp_path).free
    assert check_shared_memory(tmp_path, 64 * GIB).severity == ("ok" if free >= 2 * GIB else "warning")
    assert check_shared_memory(tmp_path / "none", 64 * GIB).severity == "note"


@pytest.mark.parametrize(
    ("used", "free", "severity"), [(10, 90, "ok"), (80, 5, "warning"), (97, 3, "error"), (970, 30, "error")]
)
def test_a_disk_that_ray_would_not_write_to_is_an_error(used: int, free: int, severity: Severity) -> None:
    assert check_disk("/tmp", (used + free) * GIB, used * GIB, free * GIB).severity == severity


def test_each_disk_is_looked_at_once_also_where_a_folder_is_not_there_yet(tmp_path: Path) -> None:
    assert len(check_disks([str(tmp_path), str(tmp_path / "a" / "b")])) == 1


def test_a_folder_that_may_not_be_looked_at_is_judged_by_what_is_above_it(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o000)
    impossible = tmp_path / ("x" * 300)  # root may look into closed folders
    try:
        assert len(check_disks([str(closed / "runs" / "mine"), str(impossible / "mine")])) == 1
    finally:
        closed.chmod(0o700)


def test_packages_that_every_worker_compiles_anew_are_told_with_the_command(tmp_path: Path) -> None:
    forbidden = check_bytecode({"PYTHONDONTWRITEBYTECODE": "1"}, {"json": 0.1})
    assert forbidden.severity == "warning"
    assert forbidden.fix.startswith("unset PYTHONDONTWRITEBYTECODE; ")
    assert " -m compileall -q " in forbidden.fix
    assert check_bytecode({}, {"json": 0.1}).severity == "note"
    assert check_bytecode({"PYTHONDONTWRITEBYTECODE": "1"}, {"json": 1.0}).severity == "note"
    assert check_bytecode({}, {"json": 1.0}).severity == "ok"


def test_the_share_of_compiled_files_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import py_compile

    package = tmp_path / "made_for_this"
    package.mkdir()
    for name in ("__init__", "one", "two", "three"):
        (package / f"{name}.py").write_text("")
    py_compile.compile(str(package / "one.py"))
    monkeypatch.syspath_prepend(tmp_path)
    assert compiled_share("made_for_this") == 0.25


@pytest.mark.parametrize(
    ("files", "processes", "severity", "says"),
    [
        ((65536, 65536), -1, "ok", "65536 open files, unlimited processes"),
        ((1024, 65536), -1, "ok", "1024 open files (Ray raises that to 65536)"),
        ((1024, 4096), -1, "warning", "1024 open files"),
        ((65536, 65536), 500, "warning", "500 processes"),
    ],
)
def test_limits_matter_where_ray_cannot_raise_them(
    files: tuple[int, int], processes: int, severity: Severity, says: str
) -> None:
    found = check_limits(files, processes)
    assert found.severity == severity
    assert says in found.what


LOCK = """
av==18.1.0 ; python_full_version < '3.12' \\
    --hash=sha256:00
av==19.0.2 ; python_full_version >= '3.12' \\
    --hash=sha256:00
ray[data]==2.60.0 \\
    --hash=sha256:00
"""


def test_a_lock_says_one_version_for_this_python() -> None:
    assert locked_versions(LOCK) == {"av": "19.0.2" if sys.version_info >= (3, 12) else "18.1.0", "ray": "2.60.0"}


def test_packages_outside_of_what_is_declared_are_an_error_and_beside_the_lock_a_note() -> None:
    wants = Wanted(
        ">=3.11,<3.13", ("av>=16", "ray[data]>=2.60,<2.61", "nt-only; sys_platform == 'win32'"), {"av": "18.1.0"}
    )
    good: dict[str, str | None] = {"av": "18.1.0", "ray": "2.60.0"}
    assert check_packages(wants, good).what == "2 declared packages, all as locked"
    assert (found := check_packages(wants, {**good, "av": "17.0"})).severity == "note"
    assert found.what == "av 17.0 (locked: 18.1.0)"
    assert (found := check_packages(wants, {**good, "ray": "2.70.0", "av": None})).severity == "error"
    assert found.what == "av is not installed, ray is 2.70.0, <2.61,>=2.60 is needed"
    assert (check_python(wants, "3.11.7").severity, check_python(wants, "3.13.0").severity) == ("ok", "error")


def test_what_this_checkout_declares_is_found() -> None:
    assert any(line.startswith("ray[") for line in wanted().declared)
    assert "torch" in wanted().locked
