"""Every method trains from a stream, and so do clips of unusual shapes."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from system.data.dataset import ensure_index, run_uri
from system.errors import ResumeError
from system.methods import METHODS
from system.models.tokenizer import load_tokenizer, save_tokenizer
from system.train.telemetry import read_metrics
from tests.small import fit_first, tiny_recipe
from tests.train.ranks import train_here

FAST = ["train.steps=2", "train.global_batch=8", "resources.num_workers=1"]


def losses(storage: Path, *overrides: str) -> list[dict[str, float]]:
    recipe = tiny_recipe(storage, *FAST, *overrides)
    fit_first(recipe)
    train_here(recipe)
    return read_metrics(run_uri(recipe))


@pytest.mark.parametrize(
    ("method", "options", "parts"),
    [
        ("videomae", ["method.decoder_mask=running_cell"], {"pixels"}),
        ("motionmae", [], {"pixels", "motion"}),
        ("motionmae", ["method.neighbour=raw", "method.decoder=independent"], {"pixels", "motion"}),
        ("mam2", ["method.codes=16"], {"codes", "motion"}),
        ("mam2", ["method.codes=16", "method.motion_target=flow", "method.alignment_weight=2"], {"codes", "alignment"}),
        ("mgm", [], {"pixels"}),
    ],
)
def test_a_method_trains_from_a_stream(
    generated: Path, request: pytest.FixtureRequest, method: str, options: list[str], parts: set[str]
) -> None:
    assert method in METHODS
    name = "".join(each if each.isalnum() else "-" for each in request.node.name)[:80]
    rows = losses(generated, f"run.name={name}", f"method.name={method}", *options)
    assert len(rows) == 2
    assert all(np.isfinite(row["loss"]) for row in rows)
    if len(parts) > 1:
        assert {f"loss/{part}" for part in parts} <= set(rows[0])
        total = sum(value for key, value in rows[0].items() if key.startswith("loss/"))
        assert total == pytest.approx(rows[0]["loss"], rel=1e-4)
    assert ("codes/perplexity" in rows[0]) == (method == "mam2")


@pytest.mark.parametrize(
    "shape",
    [
        ["data.num_frames=32"],
        ["data.size=28", "model.patch_px=14"],
        ["data.num_frames=6", "model.tubelet_frames=3"],
        ["data.num_frames=4", "model.tubelet_frames=1"],
        ["data.size=48", "model.patch_px=8"],
    ],
    ids="-".join,
)
def test_clips_of_other_shapes_train(generated: Path, request: pytest.FixtureRequest, shape: list[str]) -> None:
    name = "".join(each if each.isalnum() else "-" for each in request.node.name)[:80]
    rows = losses(generated, f"run.name={name}", "data.stride=1", *shape)
    assert all(np.isfinite(row["loss"]) for row in rows)


def grey_video(seed: int) -> bytes:
    """A video of one channel."""
    target = io.BytesIO()
    draw = np.random.default_rng(seed)
    with av.open(target, "w", format="matroska") as container:
        stream = container.add_stream("ffv1", rate=Fraction(25))
        stream.width, stream.height, stream.pix_fmt = 48, 48, "gray"
        for _ in range(16):
            frame = av.VideoFrame.from_ndarray(draw.integers(0, 255, (48, 48), np.uint8), format="gray")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return target.getvalue()


def test_videos_of_one_channel_train(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    for number in range(8):
        (folder / f"grey{number}.mkv").write_bytes(grey_video(number))
    rows = losses(tmp_path, f"data.uri={folder}", "method.normalize_target=true")
    assert all(np.isfinite(row["loss"]) for row in rows)
    recipe = tiny_recipe(tmp_path, f"data.uri={folder}")
    assert ensure_index(recipe)


def test_a_resumed_run_refuses_another_tokenizer(generated: Path) -> None:
    given = [*FAST, "run.name=another-tokenizer", "method.name=mam2", "method.codes=16", "checkpoint.every_steps=1"]
    recipe = tiny_recipe(generated, *given, "run.stop_at_step=1")
    fit_first(recipe)
    train_here(recipe)
    wanted = recipe.record.to_fit(recipe.method, run_uri(recipe))
    assert wanted is not None
    other = load_tokenizer(wanted.uri)
    for values in other.state_dict().values():
        values.add_(1)
    save_tokenizer(other, wanted.uri)
    with pytest.raises(ResumeError, match="the tokenizer of this run has other weights"):
        train_here(tiny_recipe(generated, *given))
    fit_first(recipe)  # the same again
    train_here(tiny_recipe(generated, *given))
