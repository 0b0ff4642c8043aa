from __future__ import annotations

from pathlib import Path

import pytest

from system.core.pairs import FramePair
from system.errors import RecipeError, WeightsError
from system.report.motion_sources import ALL, Setting, Weights, estimators, reference_of, section

PAIRS = (FramePair(0, 1),)
SYNTHETIC = "synthetic://moving?videos=2"


def setting(weights: Weights, size: int = 224) -> Setting:
    return Setting(weights, PAIRS, size, "cpu", print)


@pytest.mark.parametrize("name", ALL)
def test_every_listed_name_stands_for_a_source(name: str) -> None:
    motion = section(name, Weights())
    assert motion.source == name.partition(":")[0]


def test_what_follows_the_colon_is_a_preset_or_a_size() -> None:
    assert section("dis:fine", Weights()).preset == "fine"
    assert section("raft:160", Weights()).size == 160


@pytest.mark.parametrize("name", ["", "auto", "flownet", "dis:best", "frame_difference:2", "raft:100", "raft:x"])
def test_a_name_that_stands_for_nothing_is_refused_with_those_that_do(name: str) -> None:
    with pytest.raises(RecipeError, match=r"no motion source .* there are dis:ultrafast, dis,"):
        section(name, Weights())


def test_raft_is_left_out_without_weights() -> None:
    said: list[str] = []
    assert list(estimators(["raft", "dis", "raft:128"], Setting(Weights(), PAIRS, 224, "cpu", said.append))) == ["dis"]
    assert [line.split()[0] for line in said] == ["raft", "raft:128"]
    assert list(estimators(["raft", "dis"], setting(Weights(random=True)))) == ["raft", "dis"]


@pytest.mark.parametrize("weights", [Weights("none.pth"), Weights(random=True)])
def test_raft_on_clips_that_are_too_small_is_refused_with_the_way_out(weights: Weights) -> None:
    with pytest.raises(RecipeError, match=r"motion\.size=128"):
        estimators(["raft"], setting(weights, 96))


def test_weights_that_are_missing_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"none.pth: there is no such file"):
        estimators(["raft"], setting(Weights(f"{tmp_path}/none.pth")))


@pytest.mark.parametrize(
    ("names", "weights", "uri", "wanted"),
    [
        (["dis"], Weights(), SYNTHETIC, (("dis",), "truth")),
        (["dis"], Weights("w"), SYNTHETIC, (("dis",), "truth")),
        (["dis"], Weights(), "videos", (("dis", "dis:medium"), "dis:medium")),
        (["dis:medium", "dis"], Weights(), "videos", (("dis:medium", "dis"), "dis:medium")),
        (["dis", "raft"], Weights(random=True), "videos", (("dis", "raft", "dis:medium"), "dis:medium")),
        (["dis"], Weights("w"), "videos", (("dis", "raft"), "raft")),
        (["dis", "raft:128"], Weights("w"), "videos", (("dis", "raft:128"), "raft:128")),
    ],
)
def test_the_reference_is_the_truth_else_raft_else_the_best_without_weights(
    names: list[str], weights: Weights, uri: str, wanted: tuple[tuple[str, ...], str]
) -> None:
    assert reference_of(names, weights, uri) == wanted
