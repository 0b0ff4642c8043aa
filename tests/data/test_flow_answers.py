"""Flow from decode children: what the stages make of it, and of children that lie about it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from system.config import MotionSection
from system.core.pairs import FramePair, pairs_toward
from system.data import process as process_module
from system.data.assemble import StreamSpec, clip_maker, local_blocks, stage_specs
from system.data.augment import CropDraw
from system.data.columns import Batch, check_chain
from system.data.dataset import ensure_index
from system.data.decode import ClipRequest
from system.data.index import Index
from system.data.job import checked_flow
from system.data.sandbox import Answer, Job, Limits, Sandbox, Video, decode_job
from system.data.shards import ShardOptions, make_shards
from system.data.synthetic import moving_video
from system.errors import DecodeError, RecipeError
from system.motion.base import motion_source
from tests.motion import codec_scenes as scenes
from tests.small import stream_spec, tiny_recipe

PAIRS = (FramePair(0, 1), FramePair(2, 1))
REQUEST = ClipRequest((0, 4, 8), (CropDraw(0, 4),), 32, pairs=PAIRS)
DATA = moving_video(0, 0, size=(48, 48), num_frames=16)[1]
FRAME_BYTES = 3 * 32 * 32 * 3


def job(data: bytes = DATA, request: ClipRequest = REQUEST) -> Job:
    return decode_job(Video(len(data), ((0, data),), lambda start, stop: data[start:stop]), request)


def test_a_childs_flow_must_have_the_jobs_length() -> None:
    assert checked_flow(job(), b"") is None
    for data in (b"\0" * 511, b"\0" * 514, b"\0", b"\0" * 1024):
        with pytest.raises(ValueError, match=r"bytes of flow, not 512"):
            checked_flow(job(), data)


def test_a_childs_flow_goes_no_farther_than_the_clip() -> None:
    found = checked_flow(job(), np.full(256, -32768, np.int16).tobytes())
    assert found is not None
    assert found.shape == (1, 2, 8, 8, 2)
    assert (found == -32 * 64).all()


@pytest.fixture
def lying(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Sandbox]:
    """A sandbox whose child gives flow that is too long or too short, by the offset of the crop's draw."""
    script = tmp_path / "lying_child.py"
    script.write_text(
        """
from system.data import child
honest = child._Child._answer
def answer(self, message, payload):
    answer, data = honest(self, message, payload)
    lie = message["request"]["crops"][0][-1]
    return answer, {0: data, 1: data + b"x", 2: data[:-1], 3: data * 100}[lie]
child._Child._answer = answer
child.main()
"""
    )
    monkeypatch.setattr(process_module, "CHILD", [str(script)])
    made = Sandbox(FRAME_BYTES, Limits())
    yield made
    made.close()


@pytest.mark.slow
def test_a_child_that_lies_about_flow_has_crashed_and_the_next_is_believed_again(lying: Sandbox) -> None:
    def told(lie: int) -> Answer | DecodeError:
        return lying.one(job(request=ClipRequest((0, 4, 8), (CropDraw(0, lie),), 32, pairs=PAIRS)))

    for lie in (1, 2, 3):
        answer = told(lie)
        assert isinstance(answer, DecodeError)
        assert answer.code == "crash"
        assert "answers out of order" in answer.reason
    honest = told(0)
    assert isinstance(honest, Answer)
    assert honest.flow is not None
    assert honest.flow.shape == (1, 2, 8, 8, 2)


@pytest.mark.slow
def test_a_clip_without_pairs_may_bring_no_bytes(lying: Sandbox) -> None:
    answer = lying.one(job(request=ClipRequest((0, 4, 8), (CropDraw(0, 1),), 32)))
    assert isinstance(answer, DecodeError)
    plain = lying.one(job(request=ClipRequest((0, 4, 8), (CropDraw(0, 0),), 32)))
    assert isinstance(plain, Answer)
    assert plain.flow is None


MGMAE = ("method.name=mgmae", "motion.source=codec", "data.num_frames=4", "data.stride=2")


def codec_spec(generated: Path, *overrides: str) -> StreamSpec:
    return stream_spec(tiny_recipe(generated, *MGMAE, *overrides), ranks=1, last_step=1)


def first_block(spec: StreamSpec) -> Batch:
    return next(local_blocks(spec, 0, 0))


def test_masks_follow_the_streams_vectors_and_nothing_falls_back(generated: Path) -> None:
    spec = codec_spec(generated, "data.views=2")
    check_chain(stage_specs(spec.recipe))
    block = first_block(spec)
    assert not block["fallback"].any()
    assert block["weight"].all()
    assert (block["visible"].sum(1) == block["visible"][0].sum()).all()
    other = first_block(stream_spec(tiny_recipe(generated, *MGMAE, "data.views=2", "motion.source=dis"), 1, 1))
    assert (block["frames"] == other["frames"]).all()
    assert "fallback" not in other


def test_a_stream_without_vectors_falls_back_to_the_source_that_the_recipe_names(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    for number in range(4):
        moving = moving_video(0, number, size=(48, 48), num_frames=16)[1]
        name, options = ("libx264", {"crf": "20"}) if number % 2 else ("libvpx-vp9", {"crf": "30", "b": "0"})
        (videos / f"{number}.mkv").write_bytes(scenes.rewritten(moving, name, options, "matroska"))
    (tmp_path / "runs").mkdir()
    uri = f"data.uri={videos}"
    spec = codec_spec(tmp_path / "runs", uri, "train.global_batch=8", "motion.fallback=frame_difference")
    block = first_block(spec)
    assert (block["fallback"] == (block["video_id"] % 2 == 0)).all()
    plain = first_block(
        stream_spec(
            tiny_recipe(tmp_path / "runs", *MGMAE, uri, "train.global_batch=8", "motion.source=frame_difference"), 1, 1
        )
    )
    fell = block["fallback"]
    assert (block["visible"][fell] == plain["visible"][fell]).all()


@pytest.mark.slow
def test_layered_shards_give_vectors_too(generated: Path, tmp_path: Path) -> None:
    index = Index(ensure_index(tiny_recipe(generated)))
    make_shards(index, str(tmp_path), ShardOptions("layered", short_side=48, key_every=8, layers=2))
    spec = codec_spec(generated, f"data.uri={tmp_path}")
    maker = clip_maker(spec.recipe, spec.index_uri)
    assert {maker.request(maker.choose(slot)).layers for slot in range(16)} == {2}
    assert not first_block(spec)["fallback"].any()


def test_only_a_recipe_with_codec_asks_for_vectors(generated: Path) -> None:
    for overrides, wanted in ((("motion.source=codec",), pairs_toward(2, 4)), (("motion.source=dis",), ())):
        recipe = tiny_recipe(generated, *MGMAE[:1], "data.num_frames=4", "data.stride=2", *overrides)
        maker = clip_maker(recipe, ensure_index(recipe))
        assert maker.request(maker.choose(0)).pairs == wanted


def test_a_recipe_with_a_decoder_that_exports_none_is_refused(generated: Path) -> None:
    with pytest.raises(RecipeError, match=r"data.decoder=pyav exports, got data.decoder=decord"):
        tiny_recipe(generated, *MGMAE, "data.decoder=decord")


def test_the_source_of_codec_is_its_fallback_for_those_who_have_frames_alone() -> None:
    frames = np.random.default_rng(0).integers(0, 255, (1, 2, 32, 32, 3), np.uint8)
    one = motion_source(MotionSection(source="codec"))(frames, PAIRS[:1])
    assert (one == motion_source(MotionSection(source="dis"))(frames, PAIRS[:1])).all()
