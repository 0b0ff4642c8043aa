"""Motion sources by the names that a comparison gives them: `dis`, `dis:medium`, `raft:128`, ..."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from pydantic import ValidationError
from torchvision.models import optical_flow

from system.config import MotionSection
from system.core.pairs import FramePair
from system.data.dataset import SYNTHETIC
from system.errors import RecipeError
from system.motion.base import check_motion, check_raft_size, motion_source
from system.motion.raft import RAFT
from system.report.motion_stream import of_stream
from system.report.motion_table import TRUTH, Estimator, clock_of, of_frames

# Every source there is.
ALL = ("dis:ultrafast", "dis", "dis:fine", "dis:medium", "frame_difference", "codec", "raft")
# What others are compared with where neither the truth nor RAFT's weights are at hand.
BEST_WITHOUT_WEIGHTS = "dis:medium"
# What the part after the colon is, by source.
_DETAIL = {"dis": "preset", "raft": "size"}


@dataclass(frozen=True, slots=True)
class Weights:
    """Where RAFT's weights come from.

    Attributes:
        uri: of the file; None: RAFT is left out.
        random: random weights instead, for its cost alone.
    """

    uri: str | None = None
    random: bool = False


def section(name: str, weights: Weights) -> MotionSection:
    """Return the section `motion` that a name stands for.

    Raises:
        RecipeError: if it stands for none.
    """
    source, colon, detail = name.partition(":")
    tree = {"source": source, "weights": weights.uri}
    try:
        if colon:
            tree[_DETAIL[source]] = detail
        if source == "auto":
            raise KeyError(source)
        return MotionSection.model_validate(tree)
    except (KeyError, ValidationError) as error:
        raise RecipeError(
            f"there is no motion source {name!r}; there are {', '.join(ALL)}, and raft:SIZE with a multiple of 8 from"
            " 128 px on"
        ) from error


@dataclass(frozen=True, slots=True)
class Setting:
    """What sources are made for.

    Attributes:
        weights: RAFT's.
        pairs: whose flow is wanted.
        size: side of the clips, px.
        device: torch device of sources that are networks.
        say: takes lines about what is left out.
    """

    weights: Weights
    pairs: tuple[FramePair, ...]
    size: int
    device: str
    say: Callable[[str], None]


def estimator(motion: MotionSection, setting: Setting) -> Estimator:
    """Make a source.

    Raises:
        RecipeError: if the source cannot work with the clips.
        WeightsError: the weights are missing or of another network.
    """
    pairs, size = setting.pairs, setting.size
    device = setting.device if motion.source == "raft" else "cpu"
    try:
        if motion.source == "raft" and setting.weights.random:
            check_raft_size(motion.size, size, size)
            torch.manual_seed(0)
            network = optical_flow.raft_small(weights=None).eval().to(device)
            return of_frames(RAFT(network, motion.updates, motion.size), pairs, clock_of(device))
        check_motion(motion, size)
    except ValueError as error:
        raise RecipeError(str(error)) from error
    of_these_frames = of_frames(motion_source(motion, device), pairs, clock_of(device))
    return of_stream(pairs, of_these_frames, setting.say) if motion.source == "codec" else of_these_frames


def estimators(names: Sequence[str], setting: Setting) -> dict[str, Estimator]:
    """Make the sources with these names; what needs weights is left out, and said, where there are none.

    Raises:
        RecipeError: if a name stands for no source, or a source cannot work with the clips.
        WeightsError: the weights are missing or of another network.
    """
    made = {}
    for name, motion in {name: section(name, setting.weights) for name in names}.items():
        if motion.source == "raft" and setting.weights.uri is None and not setting.weights.random:
            setting.say(f"{name} is left out: it needs --weights, or --random-weights for its cost alone")
        else:
            made[name] = estimator(motion, setting)
    return made


def reference_of(names: Sequence[str], weights: Weights, uri: str) -> tuple[tuple[str, ...], str]:
    """Choose what masks are compared with: the truth of generated videos, else RAFT, else the best without weights.

    Returns:
        The names of the sources, the reference's among them, and the reference's.
    """
    if uri.startswith(SYNTHETIC):
        return tuple(names), TRUTH
    if weights.uri is None or weights.random:
        reference = BEST_WITHOUT_WEIGHTS
    else:
        reference = next((name for name in names if name.partition(":")[0] == "raft"), "raft")
    return tuple(dict.fromkeys([*names, reference])), reference
