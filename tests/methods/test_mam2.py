"""MAM2's labels are the tokenizer's, place by place, and its motion targets are what their names say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from system.core.clip import token_grid
from system.core.targets import flat_grid, unpatchify
from system.errors import WeightsError
from system.methods.base import Clips
from system.methods.mam2 import MAM2, MAM2Options, carry, code_target, frozen, motion_target, motion_values, pairs
from system.models.tokenizer import Tokenizer, TokenizerConfig, save_tokenizer

GRID = token_grid(8, 64, 2, 16)
CODES = 16


def options(**values: Any) -> MAM2Options:
    return MAM2Options.model_validate({"codes": CODES, **values})


def tokenizer() -> Tokenizer:
    torch.manual_seed(0)
    return Tokenizer(TokenizerConfig(kind="small", num_codes=CODES, factor=16, width=8, latent_width=8, code_width=8))


def video() -> Tensor:
    return torch.rand(2, 3, 8, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("which", "count"), [("first", 1), ("both", 2)])
def test_a_tokens_labels_are_the_codes_of_its_place_in_its_frames(which: str, count: int) -> None:
    coder, frames = tokenizer(), video()
    labels = code_target(Clips(frames, frozen={"tokenizer": coder}), GRID, options(code_frames=which))
    assert labels.shape == (2, GRID.tokens, count)
    assert labels.dtype == torch.int64
    for clip in range(2):
        for slot in range(GRID.slots):
            for each in range(count):
                own = coder.codes(frames[clip, :, 2 * slot + each][None], 4, 4).flatten()
                assert torch.equal(labels[clip].reshape(GRID.slots, 16, count)[slot, :, each], own)


def test_the_difference_is_that_of_a_tubelets_two_frames_signed() -> None:
    frames = video()
    target = motion_target(Clips(frames), GRID, options(normalize_target=False))
    assert target.shape == (2, GRID.tokens, 768)
    assert torch.equal(unpatchify(target, flat_grid(GRID)), frames[:, :, 1::2] - frames[:, :, ::2])


def test_flow_is_added_up_inside_of_a_slot_and_averaged_over_cells_in_patches() -> None:
    chosen = options(motion_target="flow")
    named = pairs(chosen, 8)
    assert [(pair.start, pair.end) for pair in named] == [(frame, frame + 1) for frame in range(7)]
    flow = torch.zeros(1, 7, 64, 64, 2)
    flow[:, 0, :, :, 0] = 8  # between the frames of slot 0
    flow[:, 1, :, :, 0] = 99  # between slots: in no tubelet
    flow[:, 2, 16:20, 16:20, 1] = -4  # the first cell of one patch of slot 1
    carried = carry(flow, GRID, chosen)
    assert carried.shape == (1, GRID.tokens, motion_values(GRID, chosen))
    cells = carried.reshape(4, 4, 4, 4, 4, 2)  # slots, rows, cols, cells down, cells across, (x, y)
    assert torch.allclose(cells[0, ..., 0], torch.tensor(0.5))
    assert cells[1, 1, 1, 0, 0].tolist() == [0, -0.25]
    assert carried.abs().sum() == pytest.approx(16 * 16 * 0.5 + 0.25)
    assert torch.equal(motion_target(Clips(video(), carried=carried), GRID, chosen), carried)


def test_hog_tells_directions_of_edges_and_is_nothing_where_nothing_changes() -> None:
    chosen = options(motion_target="hog")
    frames = torch.zeros(1, 3, 8, 64, 64)
    frames[:, :, 1, :32, 4:12] = 1  # a bar appears: vertical edges
    frames[:, :, 3, 4:12, :32] = 1  # horizontal ones
    target = motion_target(Clips(frames), GRID, chosen).reshape(4, 16, 4, 9)
    assert target.flatten(2).shape[-1] == motion_values(GRID, chosen)
    assert target[0, 0].sum(0).argmax() == 0
    assert target[1, 0].sum(0).argmax() == 4  # 90 degrees of 180, in 9 bins
    assert not target[2:].any()
    assert target.flatten(2)[0, 0].norm() == pytest.approx(1, abs=1e-5)


def test_a_tokenizer_with_another_number_of_codes_is_refused(tmp_path: Path) -> None:
    uri = str(tmp_path / "tokenizer.safetensors")
    save_tokenizer(tokenizer(), uri)
    assert set(frozen(options(tokenizer=uri), GRID, "")) == {"tokenizer"}
    with pytest.raises(WeightsError, match=r"has 16 codes, the recipe says method.codes=1024; set method.codes=16"):
        frozen(options(tokenizer=uri, codes=1024), GRID, "")


def test_an_automatic_tokenizer_lies_in_the_runs_folder() -> None:
    assert MAM2.to_fit(options(), "s3://bucket/runs/a") == ("s3://bucket/runs/a/tokenizer.safetensors", CODES)
    assert MAM2.to_fit(options(tokenizer="s3://bucket/t.safetensors"), "s3://bucket/runs/a") is None


def test_the_labels_are_counted() -> None:
    labels = torch.tensor([[[3], [3]], [[0], [3]]])
    counts = MAM2.count({"codes": labels}, options())["codes"]
    assert counts.tolist() == [1, 0, 0, 3, *[0] * 12]
