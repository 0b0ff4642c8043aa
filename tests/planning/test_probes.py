"""The probes on small generated videos: what they give, not how fast."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from system.data.assemble import layout_for
from system.data.columns import LABELS, Batch
from system.data.dataset import ensure_index
from system.data.index import Index, VideoRow
from system.errors import DataError
from system.planning.data_probe import probe_data, probe_masks
from system.planning.reencode_probe import affordable, probe_reencoding, px_of
from system.planning.step_probe import _too_large, probe_step, state_bytes
from system.recipe import Recipe
from tests.small import index_elsewhere, labelled_recipe, tiny_recipe

CPU = torch.device("cpu")
SHORT_S = 0.05


@pytest.mark.parametrize(
    "overrides",
    [
        ("method.name=mgmae", "method.decoder_mask=running_cell", "data.views=2"),
        ("method.name=motionmae",),  # wants frames more than the sampled ones
        ("method.name=mam2", "method.codes=32"),  # its tokenizer is fitted when the run starts
    ],
)
def test_every_methods_clips_are_decoded_masked_and_stepped_on(generated: Path, overrides: tuple[str, ...]) -> None:
    probed(tiny_recipe(generated, "run.name=probed", *overrides))


def test_labelled_clips_are_augmented_mixed_and_stepped_on(generated: Path) -> None:
    recipe = labelled_recipe(generated, "run.name=probed-labels", "data.views=2")
    rows = probed(recipe)
    assert set(LABELS) <= set(rows) and (rows["share"] < 1).any()
    told = probe_reencoding(recipe, rows_of(generated), 1.0)
    assert told == "layers hold every data.stride-th frame, and clips with labels take others"


def probed(recipe: Recipe) -> Batch:
    """Probe a recipe's stages and step, and return the rows that the step was taken on."""
    maker, data = probe_data(recipe, ensure_index(recipe), SHORT_S)
    assert not data.bad
    views = recipe.data.views
    for rate in (data.storage(views), data.decode(views)):
        assert rate.clips_per_s > 0 and rate.measured
    masks, rows = probe_masks(recipe, maker, data.clips, "cpu", SHORT_S)
    assert masks.clips_per_s > 0
    assert len(rows["visible"]) == len(data.clips) * views
    step = probe_step(recipe, rows, layout_for(recipe, 2), CPU, SHORT_S)
    assert step.rate.clips_per_s > 0
    assert step.device_bytes is None
    assert step.stall_s > 0
    assert step.state_bytes == state_bytes(recipe)
    return rows


def rows_of(generated: Path) -> list[VideoRow]:
    index = Index(ensure_index(tiny_recipe(generated)))
    return [index.row(number) for number in range(6)]


def test_what_is_in_layers_already_is_not_re_encoded(generated: Path) -> None:
    videos = [replace(row, layers=2) for row in rows_of(generated)]
    told = probe_reencoding(tiny_recipe(generated, "data.stride=4"), videos, 1.0)
    assert told == "the videos are in layers of the stride already"


def test_a_stride_that_has_no_layers_is_said(generated: Path) -> None:
    told = probe_reencoding(tiny_recipe(generated, "data.stride=1"), rows_of(generated), 1.0)
    assert told == "layers are for data.stride of 2 to 17, the recipe has 1"


def test_videos_are_chosen_that_are_re_encoded_in_the_time(generated: Path) -> None:
    small = rows_of(generated)
    film = replace(small[0], video_id=100, num_frames=180_000, width=1920, height=1080)
    assert affordable([film, *small, *small], 1.0) == small[:4]
    assert affordable([film], 1.0) == []
    long = replace(small[0], num_frames=75_000_000 // (48 * 48))  # 75 million px, at 50 million in a second
    assert px_of(long) == pytest.approx(75e6, rel=1e-3)
    assert affordable([film, long], 1.0) == [long]
    assert probe_reencoding(tiny_recipe(generated), [film], 1.0) == (
        "the sampled videos are too long to re-encode one in 1 s; give more --seconds"
    )


def cut_videos(generated: Path, folder: Path, numbers: list[int]) -> tuple[Recipe, str]:
    """Return a recipe and an index of its videos in which some have no frame that can be decoded."""
    recipe = tiny_recipe(generated)
    row = Index(ensure_index(recipe)).row(0)
    text = folder / "text.mp4"
    text.write_bytes(b"no video\n" * (row.num_bytes // 9 + 1))
    return recipe, index_elsewhere(recipe, folder / "own.parquet", dict.fromkeys(numbers, text))


def test_a_video_that_cannot_be_re_encoded_ends_no_plan(generated: Path, tmp_path: Path) -> None:
    recipe, uri = cut_videos(generated, tmp_path, [0])
    index = Index(uri)
    bad, good = index.row(0), index.row(1)
    for videos in ([bad], [bad, good]):
        told = probe_reencoding(recipe, videos, 1.0)
        assert isinstance(told, str)
        assert "cannot be re-encoded: " in told
        assert bad.name in told


def test_decoding_ends_when_time_is_up_though_nothing_was_decoded(generated: Path, tmp_path: Path) -> None:
    recipe, uri = cut_videos(generated, tmp_path, list(range(16)))
    with pytest.raises(DataError, match="none of 16 sampled videos can be decoded"):
        probe_data(recipe, uri, 0.0)


def test_a_bad_first_video_is_not_the_end_when_there_is_little_time(generated: Path, tmp_path: Path) -> None:
    recipe, uri = cut_videos(generated, tmp_path, list(range(15)))
    assert probe_data(recipe, uri, 0.0)[1].decode_s


def test_a_micro_batch_beyond_the_memory_is_told_with_what_is_left_to_change(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path, "train.micro_batch=4")
    assert _too_large(recipe, 4, "NVIDIA L4") == (
        "train.micro_batch=4: the memory of NVIDIA L4 has no room for 4 clips at a time; use train.micro_batch=2, or"
        " engine.activation_checkpointing=true, or a smaller model.size"
    )
    again = tiny_recipe(tmp_path, "train.micro_batch=4", "engine.activation_checkpointing=true")
    assert _too_large(again, 1, "NVIDIA L4").endswith("1 clips at a time; use a smaller model.size")
