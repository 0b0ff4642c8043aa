from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.models import optical_flow

from system.config import MotionSection
from system.core.pairs import FramePair, pairs_toward
from system.errors import RecipeError
from system.motion import raft
from system.motion.base import check_motion, check_raft_size, motion_source
from system.motion.raft import RAFT
from tests.small import tiny_recipe

Frames = NDArray[np.uint8]
MIXED = [FramePair(0, 1), FramePair(2, 1), FramePair(3, 0), FramePair(1, 1), FramePair(0, 3)]


@pytest.fixture(scope="module")
def network() -> optical_flow.RAFT:
    """RAFT-small with random weights."""
    torch.manual_seed(0)
    return optical_flow.raft_small(weights=None).eval()


def noise(clips: int, count: int, height: int = 128, width: int = 128) -> Frames:
    """Clips of smooth noise that moves a little from frame to frame."""
    draw = np.random.default_rng(0)
    out = np.empty((clips, count, height, width, 3), np.uint8)
    for clip in out:
        coarse = draw.integers(0, 256, (height // 8 + 4, width // 8 + 4, 3)).astype(np.uint8)
        wide = cv2.resize(coarse, (width + 32, height + 32), interpolation=cv2.INTER_CUBIC)
        clip[:] = [wide[2 * index : 2 * index + height, 3 * index : 3 * index + width] for index in range(count)]
    return out


@torch.inference_mode()
def torchvisions(
    network: nn.Module, frames: Frames, pairs: Sequence[FramePair], updates: int, side: int | None = None
) -> Tensor:
    """What torchvision's own forward gives, one pair at a time: (B, R, h, w, 2)."""
    pixels = torch.from_numpy(frames).permute(0, 1, 4, 2, 3).float() / 255 * 2 - 1
    if side is not None:
        pixels = torch.stack([nn.functional.interpolate(clip, (side, side), mode="bilinear") for clip in pixels])
    flows = [network(pixels[:, a], pixels[:, b], num_flow_updates=updates)[-1] for a, b in pairs]
    return torch.stack(flows, 1).permute(0, 1, 3, 4, 2)


@pytest.mark.parametrize("pairs", [pairs_toward(2, 4), MIXED], ids=["toward a base frame", "arbitrary"])
@pytest.mark.parametrize("seed", [0, 1])
def test_flow_is_torchvisions_for_every_pair(pairs: Sequence[FramePair], seed: int) -> None:
    torch.manual_seed(seed)
    network = optical_flow.raft_small(weights=None).eval()
    frames = noise(2, 4)
    flow, wanted = RAFT(network, 3)(frames, pairs), torchvisions(network, frames, pairs, 3)
    assert flow.shape == (2, len(pairs), 128, 128, 2)
    assert wanted.abs().mean() > 0.1
    assert torch.allclose(flow, wanted, atol=1e-4, rtol=0)


def test_frames_that_are_no_square_keep_their_axes(network: optical_flow.RAFT) -> None:
    frames = noise(1, 2, 128, 160)
    flow = RAFT(network, 2)(frames, [FramePair(0, 1)])
    assert flow.shape == (1, 1, 128, 160, 2)
    assert torch.allclose(flow, torchvisions(network, frames, [FramePair(0, 1)], 2), atol=1e-4, rtol=0)


def test_the_size_of_a_chunk_changes_nothing(network: optical_flow.RAFT, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = noise(2, 4)
    alone = RAFT(network, 2)
    monkeypatch.setattr(raft, "CPU_CHUNK_BYTES", 1 << 40)
    whole = RAFT(network, 2)(frames, MIXED)
    monkeypatch.setattr(alone, "_chunk_bytes", 1)  # one frame, one pair at a time
    assert torch.allclose(alone(frames, MIXED), whole, atol=1e-4, rtol=0)


def test_every_frame_is_encoded_once_however_many_pairs_name_it(network: optical_flow.RAFT) -> None:
    rows = {"feature_encoder": 0, "context_encoder": 0}

    def count(name: str) -> nn.modules.module.RemovableHandle:  # type: ignore[name-defined]
        def hook(_module: nn.Module, given: tuple[Tensor, ...]) -> None:
            rows[name] += len(given[0])

        return getattr(network, name).register_forward_pre_hook(hook)

    handles = [count(name) for name in rows]
    RAFT(network, 1)(noise(2, 5), [FramePair(0, 1), FramePair(0, 3), FramePair(1, 0)])
    for handle in handles:
        handle.remove()
    assert rows == {"feature_encoder": 2 * 3, "context_encoder": 2 * 2}  # frame 2 and 4 are in no pair


def test_no_pairs_are_no_work(network: optical_flow.RAFT) -> None:
    assert RAFT(network, 1)(noise(2, 2), []).shape == (2, 0, 128, 128, 2)


def test_a_clip_below_the_smallest_size_is_scaled_up_for_its_flow(network: optical_flow.RAFT) -> None:
    frames = noise(1, 2, 64, 64)
    flow = RAFT(network, 2, size=128)(frames, [FramePair(0, 1)])
    inner = torchvisions(network, frames, [FramePair(0, 1)], 2, side=128)[0]
    assert flow.shape == (1, 1, 64, 64, 2)
    # Half the px, so half the motion: each of the clip's px covers 2 x 2 of the network's.
    pooled = nn.functional.avg_pool2d(inner.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1) / 2
    assert (flow[0] - pooled)[:, 2:-2, 2:-2].abs().max() < 0.05 * pooled.abs().max()


def test_flow_of_scaled_frames_is_in_px_of_the_clip_axis_by_axis() -> None:
    network = optical_flow.raft_small(weights=None).eval()
    # An update that says the same step everywhere: the flow is known, whatever the frames show.
    last = network.update_block.flow_head.conv2
    nn.init.zeros_(last.weight)
    last.bias.data = torch.tensor([0.5, -0.25])
    flow = RAFT(network, 4, size=128)(noise(1, 2, 256, 160), [FramePair(0, 1)])[0, 0]
    # 4 steps of (0.5, -0.25) maps' px are (16, -8) px of 128 x 128, so (16 * 160 / 128, -8 * 256 / 128) of the clip.
    assert torch.allclose(flow, torch.tensor([20.0, -16.0]).expand_as(flow), atol=1e-4)


def test_a_size_that_equals_the_clips_changes_nothing(network: optical_flow.RAFT) -> None:
    frames = noise(1, 2)
    pairs = [FramePair(0, 1)]
    assert torch.equal(RAFT(network, 2, size=128)(frames, pairs), RAFT(network, 2)(frames, pairs))


def test_frames_that_are_too_small_are_refused_by_the_source_too(network: optical_flow.RAFT) -> None:
    with pytest.raises(ValueError, match=r"at least 128 px .* got 96 x 96 px .* use motion.size=128"):
        RAFT(network, 1)(noise(1, 2, 96, 96), [FramePair(0, 1)])


@pytest.mark.parametrize(("size", "way_out"), [(96, 128), (112, 128), (126, 128), (140, 144), (225, 224)])
def test_a_clip_that_raft_cannot_take_is_refused_with_the_size_that_makes_it_work(size: int, way_out: int) -> None:
    motion = MotionSection(source="raft", weights="weights.pth")
    with pytest.raises(ValueError, match=rf"got {size} x {size} px \(data.size\); use motion.size={way_out},"):
        check_motion(motion, size)
    check_motion(motion.model_copy(update={"size": way_out}), size)
    check_raft_size(None, way_out, way_out)


def test_a_recipe_of_small_clips_is_refused_before_anything_starts(tmp_path: Path) -> None:
    given = ("method.name=mgmae", "motion.source=raft", f"motion.weights={tmp_path}/none.pth")
    with pytest.raises(RecipeError, match=r"got 32 x 32 px \(data.size\); use motion.size=128"):
        tiny_recipe(tmp_path, *given)
    assert tiny_recipe(tmp_path, *given, "motion.size=128").motion.size == 128


@pytest.mark.parametrize("size", [120, 64, 132])
def test_a_motion_size_that_raft_cannot_take_is_refused(size: int, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"motion\.size"):
        tiny_recipe(tmp_path, f"motion.size={size}")


def test_weights_that_are_not_named_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"motion\.source=raft needs motion\.weights"):
        tiny_recipe(tmp_path, "method.name=mgmae", "motion.source=raft")


def test_a_recipe_s_source_is_raft_with_its_weights_updates_and_size(
    network: optical_flow.RAFT, tmp_path: Path
) -> None:
    torch.save(network.state_dict(), tmp_path / "raft.pth")
    frames, pairs = noise(1, 2, 64, 64), [FramePair(0, 1)]
    source = motion_source(MotionSection(source="raft", weights=f"file://{tmp_path}/raft.pth", updates=3, size=128))
    assert torch.equal(source(frames, pairs), RAFT(network, 3, size=128)(frames, pairs))


def near(flow: Tensor, wanted: Tensor) -> bool:
    """Say whether flow is as near to another as rounding to bf16 leaves it."""
    return bool((flow - wanted).norm(dim=-1).median() < 0.05 * wanted.norm(dim=-1).median())


def test_encoders_and_updates_in_bf16_stay_near_fp32(
    network: optical_flow.RAFT, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, frames, pairs = RAFT(network, 6), noise(1, 2), [FramePair(0, 1), FramePair(1, 0)]
    monkeypatch.setattr(source, "_bf16", True)
    flow, wanted = source(frames, pairs), torchvisions(network, frames, pairs, 6)
    assert flow.dtype == torch.float32
    assert near(flow, wanted)
    assert not torch.allclose(flow, wanted, atol=1e-4, rtol=0)


@pytest.mark.gpu
def test_flow_of_a_gpu_stays_near_the_cpus(network: optical_flow.RAFT) -> None:
    frames = noise(2, 4, 224, 224)
    flow = RAFT(copy.deepcopy(network).cuda(), 6)(frames, MIXED)
    assert flow.is_cuda
    assert near(flow.cpu(), torchvisions(network, frames, MIXED, 6))
