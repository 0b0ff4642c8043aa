"""Features of single frames: the encoder's own at its size, and what positions and tubelets mean at others."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from system.core.clip import token_grid
from system.evaluate.dense_features import Dense, DenseEncoder, clip_numbers, resized_positions
from system.evaluate.features import all_tokens, float_frames
from system.models.blocks import sinusoid
from system.models.encoder import Encoder
from system.models.sizes import Shape

GRID = token_grid(8, 32, 2, 16)  # 4 slots of 2 x 2
SLIDING = Dense("sliding")
Frames = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


def encoder() -> Encoder:
    torch.manual_seed(0)
    return Encoder(GRID, Shape(48, 3, 3)).eval()


def video(count: int, height: int = 32, width: int = 32) -> Frames:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3)).astype(np.uint8)


def test_positions_at_the_trained_size_are_the_trained_ones() -> None:
    table = sinusoid(GRID.tokens, 48)
    assert torch.allclose(resized_positions(table, GRID, 4, 2, 2), table, atol=1e-6)
    assert torch.allclose(resized_positions(table, GRID, 1, 2, 2), table[:4], atol=1e-6)


def test_positions_are_resized_within_each_slot() -> None:
    table = torch.arange(4.0).repeat_interleave(4)[:, None]  # the slot's number at each of its places
    resized = resized_positions(table, GRID, 4, 3, 5).reshape(4, 15)
    assert torch.allclose(resized, torch.arange(4.0)[:, None].expand(4, 15), atol=1e-6)


def test_positions_keep_rows_and_cols_apart() -> None:
    rows = torch.tensor([0.0, 0, 1, 1]).repeat(4)[:, None]
    resized = resized_positions(rows, GRID, 1, 6, 4).reshape(6, 4)
    assert (resized == resized[:, :1]).all()
    assert (resized.diff(dim=0) >= 0).all()
    assert resized[3:].mean() - resized[:3].mean() > 0.5


@pytest.mark.parametrize("layer", [0, 3])
def test_a_sliding_clip_at_the_trained_size_gives_the_encoders_own_tokens(layer: int) -> None:
    model, frames = encoder(), video(8)
    with torch.no_grad():
        tokens = model(float_frames(frames[None]), all_tokens(1, GRID)).reshape(4, 4, 48)
    dense = DenseEncoder(model, GRID, (2, 2), Dense("sliding", layer=layer))
    found = list(dense.of_video(lambda number: frames[number], 8))
    # Frame 4 begins slot 2, the middle one, of the clip of frames 0 to 7.
    assert torch.allclose(found[4], tokens[2], atol=1e-5)


def test_a_repeated_frame_is_the_first_slot_of_a_still_clip_alone() -> None:
    model, frame = encoder(), video(1)
    with torch.no_grad():
        tokens = model(float_frames(frame[None].repeat(8, 1)), torch.arange(4)[None])[0]
    found = next(DenseEncoder(model, GRID, (2, 2), Dense()).of_video(lambda number: frame[number], 1))
    assert torch.allclose(found, tokens, atol=1e-5)


def test_a_sliding_clip_begins_its_middle_slot_with_the_frame_and_repeats_the_ends() -> None:
    assert clip_numbers(10, 40, GRID, SLIDING) == [6, 7, 8, 9, 10, 11, 12, 13]
    assert clip_numbers(1, 40, GRID, SLIDING) == [0, 0, 0, 0, 1, 2, 3, 4]
    assert clip_numbers(39, 40, GRID, SLIDING) == [35, 36, 37, 38, 39, 39, 39, 39]
    assert clip_numbers(10, 40, GRID, Dense("sliding", clip_stride=2)) == [2, 4, 6, 8, 10, 12, 14, 16]
    assert clip_numbers(10, 40, GRID, Dense()) == [10, 10]


def test_layers_and_the_norm_are_what_they_say() -> None:
    model, frames = encoder(), video(1, 32, 48)

    def of(how: Dense) -> torch.Tensor:
        return next(DenseEncoder(model, GRID, (2, 3), how).of_video(lambda number: frames[number], 1))

    last, second = of(Dense(norm=False)), of(Dense(layer=2, norm=False))
    assert last.shape == (6, 48)
    with torch.no_grad():
        assert torch.allclose(model.blocks[2](second[None])[0], last, atol=1e-5)
        assert torch.allclose(model.norm(last), of(Dense()), atol=1e-5)


@pytest.mark.parametrize("tubelet", ["duplicate", "sliding"])
def test_features_do_not_depend_on_the_batch_and_each_frame_is_read_once(tubelet: str) -> None:
    model, frames, reads = encoder(), video(11, 32, 48), []

    def read(number: int) -> Frames:
        reads.append(number)
        return np.asarray(frames[number], np.uint8)

    def of(batch: int) -> torch.Tensor:
        how = Dense(tubelet, batch=batch)  # type: ignore[arg-type]
        return torch.stack(list(DenseEncoder(model, GRID, (2, 3), how).of_video(read, 11)))

    one = of(1)
    assert reads == sorted(set(reads))
    assert len(one) == len(reads) == 11
    assert torch.allclose(one, of(4), atol=1e-5)


def test_bf16_is_near_to_float32() -> None:
    model, frames = encoder(), video(2)

    def of(*, bf16: bool) -> torch.Tensor:
        return torch.stack(list(DenseEncoder(model, GRID, (2, 2), Dense(bf16=bf16)).of_video(frames.__getitem__, 2)))

    exact, coarse = of(bf16=False), of(bf16=True)
    assert coarse.dtype == torch.float32
    assert not torch.equal(exact, coarse)
    assert (exact - coarse).abs().mean() < 0.05
