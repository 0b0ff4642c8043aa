"""The learning check in its smallest form: that it runs, that losses fall, and that wrong arguments are told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.learning_check import main
from system.errors import RecipeError


@pytest.mark.slow
def test_the_short_form_runs_two_methods_and_their_losses_fall(tmp_path: Path) -> None:
    code = main(["--out", str(tmp_path), "--quick", "--processes", "1", "--methods", "videomae", "mgmae"])
    assert code == 0
    result = json.loads((tmp_path / "results.json").read_text())
    untrained, *trained = result["trials"]
    assert untrained["method"] == "untrained"
    assert [trial["method"] for trial in trained] == ["videomae", "mgmae"]
    for trial in trained:
        first, last = trial["losses"]["loss"]
        assert last < first
        assert len(trial["points"]) == 3
        assert all(0 <= point["probe"] <= 1 and 0 <= point["fine_tuned"] <= 1 for point in trial["points"])
    assert trained[0]["leakage"] == result["leakage"]["tube"]
    text = (tmp_path / "results.md").read_text()
    assert all(name in text for name in ("untrained", "videomae", "mgmae", result["commit"]))


def test_a_method_or_source_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="there is no method mgmea"):
        main(["--out", str(tmp_path), "--methods", "mgmea"])
    with pytest.raises(RecipeError, match="--motion is one of truth, codec, dis, frame_difference, got flow"):
        main(["--out", str(tmp_path), "--motion", "flow"])
