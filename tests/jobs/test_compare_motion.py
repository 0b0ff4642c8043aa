from __future__ import annotations

from pathlib import Path

import cv2
import pytest
import torch
from torchvision.models import optical_flow

from jobs import compare_motion
from tests.jobs.test_arguments import code_of

Output = pytest.CaptureFixture[str]
SMALL = ["--clips", "2", "--frames", "4", "--size", "64", "--mask-ratio", "0.5"]
DATA = "synthetic://moving?videos=2&frames=24&height=72&width=96"


def cells(told: str, source: str) -> list[str]:
    (line,) = [line for line in told.splitlines() if line.startswith(f"| {source} ")]
    return [cell.strip() for cell in line.split("|")[2:-1]]


def test_generated_clips_are_compared_with_the_truth_and_drawn(tmp_path: Path, capsys: Output) -> None:
    given = ["--data", DATA, *SMALL, "--out", str(tmp_path), "--sources", "dis,dis:medium,raft:128"]
    assert code_of(compare_motion.main, *given) == 0
    told = capsys.readouterr().out
    assert "raft:128 is left out: it needs --weights, or --random-weights for its cost alone" in told
    assert "2 clips of 4 x 64 x 64, stride 4" in told
    assert "mask overlap with truth" in told
    milliseconds, error, moving, agreement = map(float, cells(told, "dis"))
    assert milliseconds > 0
    assert 0 < error < 1
    assert 0 < moving < 2
    assert 0.3 < agreement <= 1
    picture = cv2.imread(str(tmp_path / "motion_sources.png"))
    assert picture is not None
    # Per clip: frames, then flow and masks of the truth and two sources, 64 px each with a line between them.
    assert picture.shape[0] == 2 * (7 * (64 + 2) + 6)


def test_random_weights_give_rafts_cost_alone(tmp_path: Path, capsys: Output) -> None:
    given = ["--data", DATA, *SMALL, "--out", str(tmp_path), "--sources", "dis,raft:128", "--pictures", "0"]
    assert code_of(compare_motion.main, *given, "--random-weights") == 0
    milliseconds, *rest = cells(capsys.readouterr().out, "raft:128")
    assert float(milliseconds) > 0
    assert rest == ["-", "-", "-"]
    assert not (tmp_path / "motion_sources.png").exists()


def test_a_folder_is_compared_with_raft_where_there_are_weights_and_with_dis_elsewhere(
    generated: Path, tmp_path: Path, capsys: Output
) -> None:
    folder = next((generated / "synthetic").iterdir())
    torch.save(optical_flow.raft_small(weights=None).state_dict(), tmp_path / "raft.pth")
    given = ["--data", str(folder), *SMALL, "--stride", "2", "--out", str(tmp_path), "--sources", "frame_difference"]
    assert code_of(compare_motion.main, *given) == 0
    told = capsys.readouterr().out
    assert "mask overlap with dis:medium" in told
    assert cells(told, "dis:medium")[1:] == ["-", "-", "1.000"]
    assert code_of(compare_motion.main, *given[:-1], "dis,raft:128", "--weights", str(tmp_path / "raft.pth")) == 0
    told = capsys.readouterr().out
    assert "mask overlap with raft:128" in told
    assert cells(told, "raft:128")[1:] == ["-", "-", "1.000"]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (["--sources", "flownet"], "there is no motion source 'flownet'"),
        (["--sources", "raft", "--random-weights"], "use motion.size=128"),
        (["--size", "60"], "data.size=60 is not a multiple of model.patch_px=16"),
        (["--data", "none"], "none: there is no such folder"),
    ],
)
def test_what_is_wrong_is_one_sentence(wrong: list[str], says: str, tmp_path: Path, capsys: Output) -> None:
    given = ["--data", DATA, *SMALL, "--out", str(tmp_path), *wrong]
    assert code_of(compare_motion.main, *given) == 2
    error = capsys.readouterr().err
    assert says in error
    assert "Traceback" not in error
