from __future__ import annotations

import numpy as np
import pytest
import torch

from system.train.batch import micro_batches, num_micro_batches, split_tokens

CPU = torch.device("cpu")


def block(clips: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    visible = np.zeros((clips, 8), np.bool_)
    visible[:, :3] = True
    frames = rng.integers(0, 256, (clips, 4, 8, 6, 3), np.uint8)
    frames.flags.writeable = False  # as a view of shared memory is
    return {"frames": frames, "visible": rng.permuted(visible, axis=1), "weight": np.ones(clips, np.float32)}


def test_visible_and_hidden_tokens_are_all_tokens_in_order() -> None:
    visible = np.array([[True, False, True, False], [False, True, True, False]])
    shown, hidden = split_tokens(visible)
    assert shown.tolist() == [[0, 2], [1, 2]]
    assert hidden.tolist() == [[1, 3], [0, 3]]


def test_clips_that_see_unequally_much_are_refused() -> None:
    with pytest.raises(ValueError, match=r"sees the same number of tokens, got \[1, 2\]"):
        split_tokens(np.array([[True, False], [True, True]]))


@pytest.mark.parametrize("clips", [1, 3, 4, 7, 9])
def test_a_block_is_cut_without_loss_or_change_of_order(clips: int) -> None:
    rows = block(7)
    parts = list(micro_batches(rows, clips, CPU))
    assert len(parts) == num_micro_batches(7, 1, clips)
    frames = torch.cat([part.frames for part in parts])
    assert frames.shape == (7, 3, 4, 8, 6)
    assert torch.equal((frames * 255).round().byte(), torch.from_numpy(rows["frames"].copy()).permute(0, 4, 1, 2, 3))
    assert torch.cat([part.shown for part in parts]).shape == (7, 3)
    assert 0 <= float(frames.min()) < float(frames.max()) <= 1
