"""MotionMAE's differences are those of the frames that the options name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from system.core.clip import token_grid
from system.core.targets import flat_grid, unpatchify
from system.methods.base import Clips
from system.methods.motionmae import MotionMAEOptions, extra_frames, motion_target, motion_values

GRID = token_grid(8, 32, 2, 16)


def options(**values: Any) -> MotionMAEOptions:
    return MotionMAEOptions.model_validate({"normalize_target": False, **values})


def video(frames: int) -> Tensor:
    return torch.rand(2, 3, frames, 32, 32, generator=torch.Generator().manual_seed(0))


def test_the_default_looks_at_the_next_sampled_frame_and_decodes_a_17th_for_the_last_one() -> None:
    assert extra_frames(options(), 16, 4) == (64,)
    frames = video(9)
    target = motion_target(Clips(frames[:, :, :8], frames[:, :, 8:]), GRID, options())
    assert torch.equal(unpatchify(target, GRID), (frames[:, :, 1:] - frames[:, :, :8]).abs())


def test_a_repeated_last_frame_does_not_change() -> None:
    chosen = options(last_frame="repeat", difference="signed")
    assert extra_frames(chosen, 16, 4) == ()
    frames = video(8)
    change = unpatchify(motion_target(Clips(frames), GRID, chosen), GRID)
    assert torch.equal(change[:, :, :7], frames[:, :, 1:] - frames[:, :, :7])
    assert not change[:, :, 7].any()


@pytest.mark.parametrize("stride", [2, 4])
def test_raw_neighbours_are_the_frames_after_the_sampled_ones(stride: int) -> None:
    chosen = options(neighbour="raw", difference="signed")
    offsets = extra_frames(chosen, 8, stride)
    whole = video(8 * stride + 1)
    sampled, after = whole[:, :, : 8 * stride : stride], whole[:, :, list(offsets)]
    change = unpatchify(motion_target(Clips(sampled, after), GRID, chosen), GRID)
    for frame in range(8):
        assert torch.equal(change[:, :, frame], whole[:, :, frame * stride + 1] - whole[:, :, frame * stride])


def test_without_a_stride_raw_and_sampled_neighbours_are_the_same_frames() -> None:
    frames = video(9)
    made = []
    for neighbour in ("raw", "sampled"):
        chosen = options(neighbour=neighbour)
        assert extra_frames(chosen, 8, 1) == (8,)
        made.append(motion_target(Clips(frames[:, :, :8], frames[:, :, 8:]), GRID, chosen))
    assert torch.equal(*made)


def test_a_difference_inside_of_a_tubelet_is_that_of_its_two_frames() -> None:
    chosen, frames = options(differences="tubelet", difference="signed"), video(8)
    assert extra_frames(chosen, 8, 4) == ()
    change = unpatchify(motion_target(Clips(frames), GRID, chosen), flat_grid(GRID))
    assert torch.equal(change, frames[:, :, 1::2] - frames[:, :, ::2])


@pytest.mark.parametrize(
    ("values", "count"),
    [({}, 1536), ({"colours": "grey"}, 512), ({"differences": "tubelet"}, 768), ({"positions": "learned"}, 1536)],
)
def test_a_token_has_as_many_values_as_its_options_say(values: dict[str, Any], count: int) -> None:
    chosen = options(**values)
    extra = video(9)[:, :, 8:] if extra_frames(chosen, 8, 1) else None
    assert motion_target(Clips(video(9)[:, :, :8], extra), GRID, chosen).shape == (2, GRID.tokens, count)
    assert motion_values(GRID, chosen) == count


@pytest.mark.parametrize("normalize", [True, False])
def test_where_nothing_moves_the_target_is_zero(normalize: bool) -> None:
    still = video(1).expand(-1, -1, 9, -1, -1)
    target = motion_target(Clips(still[:, :, :8], still[:, :, 8:]), GRID, options(normalize_motion=normalize))
    assert not target.any()


def test_the_motion_is_normalised_as_the_pixels_are_unless_it_is_said_otherwise() -> None:
    frames = video(9)
    clips = Clips(frames[:, :, :8], frames[:, :, 8:])
    as_pixels = motion_target(clips, GRID, options(normalize_target=True))
    assert torch.allclose(as_pixels.reshape(2, GRID.tokens, -1, 3).mean(2), torch.zeros(()), atol=1e-5)
    assert torch.equal(as_pixels, motion_target(clips, GRID, options(normalize_motion=True)))
    plain = motion_target(clips, GRID, options(normalize_target=True, normalize_motion=False))
    assert plain.min() >= 0
