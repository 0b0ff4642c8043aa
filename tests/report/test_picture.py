from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from system.core.targets import patchify, unpatchify
from system.data.assemble import local_blocks
from system.methods.base import Clips
from system.models.blocks import gather_tokens
from system.recipe import Recipe, load_recipe
from system.report.picture import MARGIN, TEXT_WIDTH, clips_of_run, flow_colours, picture_of, reconstructions
from system.train.batch import micro_batches
from system.train.judging import build_model
from tests.conftest import RECIPES, TINY
from tests.small import stream_spec, tiny_recipe


class Perfect(nn.Module):
    """Predicts every target exactly."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self._recipe = recipe

    def forward(self, frames: Tensor, _shown: Tensor, hidden: Tensor) -> dict[str, Tensor]:
        (target,) = self._recipe.record.targets.values()
        return {"pixels": gather_tokens(target(Clips(frames), self._recipe.grid, self._recipe.method), hidden)}


@pytest.mark.parametrize("normalize", [True, False])
def test_true_statistics_flatter_and_visible_ones_do_not_cheat(generated: Path, normalize: bool) -> None:
    recipe = tiny_recipe(generated, f"method.normalize_target={normalize}")
    (batch,) = micro_batches(next(iter(local_blocks(stream_spec(recipe, 1), 0, 0))), 16, torch.device("cpu"))
    made = reconstructions(recipe, Perfect(recipe), batch)
    assert len(made) == 1 + normalize
    assert torch.allclose(
        made[-1].frames, batch.frames, atol=2e-3
    )  # a perfect prediction with what it was computed with
    if normalize:
        assert not torch.allclose(made[0].frames, batch.frames, atol=2e-2)


def test_visible_statistics_do_not_depend_on_hidden_pixels(generated: Path) -> None:
    recipe = tiny_recipe(generated, "method.normalize_target=true")
    (batch,) = micro_batches(next(iter(local_blocks(stream_spec(recipe, 1), 0, 0))), 16, torch.device("cpu"))

    class Zero(nn.Module):
        def forward(self, _frames: Tensor, _shown: Tensor, hidden: Tensor) -> dict[str, Tensor]:
            return {"pixels": torch.zeros(*hidden.shape, 2 * 16 * 16 * 3)}

    patches = patchify(batch.frames, recipe.grid)
    index = batch.predicted[..., None, None].expand(-1, -1, *patches.shape[2:])
    noise = patches.scatter(1, index, torch.rand_like(patches))
    changed = replace(batch, frames=unpatchify(noise.flatten(2), recipe.grid))
    assert not torch.equal(changed.frames, batch.frames)
    one, other = (reconstructions(recipe, Zero(), each)[0].frames for each in (batch, changed))
    assert torch.allclose(one, other, atol=1e-6)


def test_still_is_white_and_opposite_directions_have_opposite_colours() -> None:
    flow = np.zeros((1, 3, 2), np.float32)
    flow[0, 1], flow[0, 2] = (5, 0), (-5, 0)
    still, right, left = flow_colours(flow, 5)[0].astype(int)
    assert still.tolist() == [255, 255, 255]
    assert (right + left - 255 < 20).all()


@pytest.mark.parametrize(
    ("method", "rows"),
    [
        ("mgmae", 4),  # input, flow, visible, reconstruction
        ("motionmae", 6),  # and the differences, true and predicted
    ],
)
def test_the_picture_has_a_row_of_images_for_each_thing_that_it_shows(generated: Path, method: str, rows: int) -> None:
    recipe = tiny_recipe(generated, f"method.name={method}")
    uri = stream_spec(recipe, 1).index_uri
    clips = clips_of_run(recipe, uri, build_model(recipe, torch.device("cpu")), 3, 2)
    image = cv2.imdecode(np.frombuffer(picture_of(clips), np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    assert image.shape == (2 * (rows * 32 + MARGIN), TEXT_WIDTH + 2 * (32 + 2), 3)


def test_a_decoder_mask_leaves_visible_and_unpredicted_tokens_as_they_are(generated: Path) -> None:
    recipe = tiny_recipe(generated, "method.decoder_mask=running_cell")
    (batch,) = micro_batches(next(iter(local_blocks(stream_spec(recipe, 1), 0, 0))), 16, torch.device("cpu"))
    assert batch.counted is not None
    (row,) = reconstructions(recipe, build_model(recipe, torch.device("cpu")), batch)
    changed = (patchify(row.frames, recipe.grid) - patchify(batch.frames, recipe.grid)).abs().amax((2, 3)) > 1e-3
    counted = torch.zeros(changed.shape).scatter(1, batch.predicted, batch.counted) > 0
    assert torch.equal(changed, counted)


def test_a_clip_has_the_flow_from_each_slots_first_frame_to_the_next_ones(generated: Path) -> None:
    recipe = tiny_recipe(generated)
    model = build_model(recipe, torch.device("cpu"))
    (clip,) = clips_of_run(recipe, stream_spec(recipe, 1).index_uri, model, 0, 1)
    assert clip.flow.shape == (1, 32, 32, 2)
    assert [row.name for row in clip.rows] == ["input", "flow", "visible", "reconstruction"]
    assert clip.visible.shape == (8,)


def test_a_method_without_masks_shows_no_clips(generated: Path) -> None:
    masked = tiny_recipe(generated)
    others = [each for each in TINY if not each.startswith("method.")]
    recipe = load_recipe(RECIPES / "smoke.yaml", [*others, f"run.storage={generated}", "method.name=classify"])
    assert recipe.record.labelled
    assert clips_of_run(recipe, stream_spec(masked, 1).index_uri, nn.Identity(), 0, 2) == []
