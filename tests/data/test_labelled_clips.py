"""Labelled clips in the stream: which frames, which labels, mixed with whom; the same however a step is cut."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from system import storage
from system.core.identity import checksum
from system.core.views import dense_training_frames, segment_training_frames
from system.data.assemble import (
    StreamSpec,
    clip_maker,
    decode_stage,
    limits_of,
    local_blocks,
    masker,
    read_stage,
    stage_specs,
)
from system.data.classes import read_classes
from system.data.clips import ClipMaker, VideoFacts
from system.data.columns import Batch, check_chain
from system.data.dataset import ensure_index, run_uri
from system.data.decoders import decode_clip
from system.data.index import Index, IndexWriter
from system.data.labelling import labeller
from system.data.reading import pack_starts
from system.data.stages import DecodeStage
from system.errors import DataError, RecipeError
from system.recipe import Recipe
from tests.data.test_decode import whole
from tests.small import labelled_recipe, stream_spec

PLAIN = ("method.rand_augment=null", "method.flip=0", "method.erase=0", "method.mix_share=0")
COMPARED = ("frames", "label", "other", "share", "draws", "visible", "start", "video_id", "pixels", "weight")


@pytest.fixture(scope="module")
def recipe(generated: Path) -> Recipe:
    return labelled_recipe(generated, "run.name=labelled", "data.views=2")


@pytest.fixture
def decode(recipe: Recipe) -> Iterator[DecodeStage]:
    stage = decode_stage(stream_spec(recipe, 1))
    yield stage
    stage.close()


def clips_of(spec: StreamSpec, step: int = 0) -> dict[tuple[int, int], tuple[Any, ...]]:
    """Return all that the model is told of each real clip of a step: (slot, view) -> values."""
    found = {}
    for rank in range(spec.layout.num_ranks):
        for rows in local_blocks(replace(spec, last_step=step + 1), rank, step):
            for row in np.flatnonzero(rows["weight"]):
                key = int(rows["slot"][row]), int(rows["view"][row])
                found[key] = tuple(rows[name][row].tobytes() for name in COMPARED)
    return found


@pytest.mark.parametrize(("ranks", "per_block"), [(2, 48), (1, 4), (3, 2)])
def test_rows_are_the_same_however_a_step_is_cut(recipe: Recipe, ranks: int, per_block: int) -> None:
    data = recipe.data.model_copy(update={"clips_per_block": per_block})
    resources = recipe.resources.model_copy(update={"max_padding": 0.5})
    cut = recipe.model_copy(update={"data": data, "resources": resources})
    assert clips_of(stream_spec(cut, ranks), 3) == clips_of(stream_spec(recipe, 1), 3)


def test_the_same_block_is_the_same_to_the_last_bit_and_the_next_epochs_is_not(
    recipe: Recipe, decode: DecodeStage
) -> None:
    read = read_stage(stream_spec(recipe, 1))
    first, again, later = (decode(read({"block": np.array([number])})) for number in (0, 0, 2))
    assert all((first[name] == again[name]).all() for name in first)
    assert sorted(first["video_id"]) != sorted(later["video_id"]) or (first["pixels"] != later["pixels"]).all()


def test_the_chain_declares_the_columns_that_come(recipe: Recipe, decode: DecodeStage) -> None:
    check_chain(stage_specs(recipe))
    rows = decode(read_stage(stream_spec(recipe, 1))({"block": np.array([0])}))
    (_, declared) = stage_specs(recipe)
    assert set(rows) == set(declared.gives)
    for name, column in declared.gives.items():
        assert rows[name].dtype == np.dtype(column.dtype), name
        assert rows[name].shape == (16, *column.shape), name


def test_labels_are_those_of_the_videos_that_stand_in_the_slots(recipe: Recipe, decode: DecodeStage) -> None:
    rows = decode(read_stage(stream_spec(recipe, 1))({"block": np.array([0])}))
    index, classes = Index(ensure_index(recipe)), read_classes(run_uri(recipe))
    assert [classes[number] for number in rows["label"]] == [index.row(video).label for video in rows["video_id"]]


def test_each_clip_is_mixed_with_the_same_view_of_the_other_slot_of_its_pair(
    recipe: Recipe, decode: DecodeStage
) -> None:
    rows = decode(read_stage(stream_spec(recipe, 1))({"block": np.array([0])}))
    label, other, share = (rows[name].reshape(-1, 2, 2) for name in ("label", "other", "share"))  # pair, slot, view
    mixed = share < 1
    assert mixed.mean() > 0.8
    assert (mixed[:, 0] == mixed[:, 1]).all()
    assert (share[:, 0] == share[:, 1]).all()
    assert (share[:, :, 0] != share[:, :, 1]).any()
    assert (other == np.where(mixed, label[:, ::-1], label)).all()


def test_the_mixture_is_of_the_two_clips_as_they_are_without_it(recipe: Recipe) -> None:
    method = recipe.method.model_copy(update={"mix_share": 0.0})
    alone = clip_rows(recipe.model_copy(update={"method": method}))
    up = recipe.method.model_copy(update={"cutmix": 0.0})
    mixed = clip_rows(recipe.model_copy(update={"method": up}))
    assert (alone["share"] == 1).all() and (alone["label"] == alone["other"]).all()
    for row in range(16):
        partner = row ^ 2  # two views a slot
        share = mixed["share"][row]
        expected = share * alone["frames"][row].astype(float) + (1 - share) * alone["frames"][partner]
        assert abs(mixed["frames"][row] - expected).max() <= 0.51


def clip_rows(recipe: Recipe) -> Batch:
    return next(iter(local_blocks(stream_spec(recipe, 1, last_step=1), 0, 0)))


def test_pixels_are_of_what_the_model_sees(recipe: Recipe) -> None:
    rows = clip_rows(recipe)
    assert rows["pixels"].tolist() == [checksum(frames) for frames in rows["frames"]]


def test_views_of_a_video_share_its_frames_and_differ_in_all_that_is_drawn(recipe: Recipe) -> None:
    rows = clip_rows(recipe)
    assert (rows["start"][::2] == rows["start"][1::2]).all()
    assert (rows["pixels"][::2] != rows["pixels"][1::2]).all()
    assert (rows["draws"][::2] != rows["draws"][1::2]).all()
    assert rows["draws"].shape[1] == 2 * 2 and 0 <= rows["draws"].min() < rows["draws"].max() < 1


def damaged(rows: Batch, places: list[int]) -> Batch:
    data, starts = rows["bytes"].copy(), rows["starts"].copy()
    for place in places:
        data[place] = b"no video"
        starts[place] = pack_starts(((0, b"no video"),))
    return {**rows, "bytes": data, "starts": starts}


def test_a_spare_brings_its_own_label_and_its_partner_gets_that(recipe: Recipe, decode: DecodeStage) -> None:
    good = read_stage(stream_spec(recipe, 1))({"block": np.array([0])})
    rows, before = decode(damaged(good, [2])), decode(good)
    index, classes = Index(ensure_index(recipe)), read_classes(run_uri(recipe))
    assert rows["attempt"][4] == 1
    spare = classes.index(index.row(int(rows["video_id"][4])).label)
    assert rows["label"][4:6].tolist() == [spare] * 2
    mixed = rows["share"][6:8] < 1
    assert rows["other"][6:8][mixed].tolist() == [spare] * int(mixed.sum())
    assert (rows["share"] == before["share"]).all()
    others = np.r_[0:4, 8:16]
    assert (rows["frames"][others] == before["frames"][others]).all()


def test_a_partner_without_a_video_is_not_mixed_with(recipe: Recipe) -> None:
    spec = stream_spec(recipe, 1)
    maker = clip_maker(recipe, spec.index_uri)
    stage = DecodeStage(maker, limits_of(recipe), masker(recipe), {}, spares=False, labeller=labeller(recipe))
    try:
        rows = stage(damaged(read_stage(spec)({"block": np.array([0])}), [2]))
    finally:
        stage.close()
    assert rows["weight"].tolist() == [1] * 4 + [0, 0] + [1] * 10
    assert rows["share"][4:8].tolist() == [1] * 4
    assert (rows["other"][6:8] == rows["label"][6:8]).all()
    assert not rows["frames"][4:6].any()
    assert not rows["label"][4:6].any()


def test_padding_has_a_class_and_no_weight(recipe: Recipe) -> None:
    resources = recipe.resources.model_copy(update={"max_padding": 0.5})
    spec = stream_spec(recipe.model_copy(update={"resources": resources}), ranks=3, last_step=1)
    last = [rows for rank in range(3) for rows in local_blocks(spec, rank, 0)][-1]
    none = last["slot"] < 0
    assert none.any() and not last["weight"][none].any()
    assert not last["label"][none].any() and (last["share"][none] == 1).all()
    assert last["visible"].all()


def test_an_index_and_classes_that_do_not_belong_together_are_refused(recipe: Recipe, generated: Path) -> None:
    own = labelled_recipe(generated, "run.name=torn")
    storage.write(storage.join(run_uri(own), "classes.json"), b'["a", "b"]')
    with pytest.raises(DataError, match=r"classes.json do not belong together"):
        clip_rows(own)


def test_a_step_that_does_not_hold_whole_pairs_is_refused_with_a_way_out(generated: Path) -> None:
    odd = ("train.global_batch=18", "data.views=2", "train.micro_batch=2")
    with pytest.raises(RecipeError, match=r"9 videos of a step, an odd number, .* train.global_batch=20, or method"):
        labelled_recipe(generated, "run.name=odd", *odd)
    assert labelled_recipe(generated, "run.name=odd", *odd, "method.mix_share=0").slots_together == 1


@pytest.mark.parametrize("word", ["rand-m7-n4-mstd0.5-inc1", "rand-m9-n2-p0.3-mmax20-tweights", "rand"])
def test_words_of_timm_are_accepted(generated: Path, word: str) -> None:
    labelled_recipe(generated, "run.name=words", f"method.rand_augment={word}")


@pytest.mark.parametrize("word", ["rand-x3", "augmix-m3", "rand-mseven", "rand-m7-mstd.5", "rand-p.5", ""])
def test_other_words_for_rand_augment_are_refused(generated: Path, word: str) -> None:
    with pytest.raises(RecipeError, match=r"method.rand_augment: is timm's word for RandAugment, such as"):
        labelled_recipe(generated, "run.name=words", f"method.rand_augment='{word}'")


@pytest.fixture(scope="module")
def lengths(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> ClipMaker:
    """The maker of an index of videos from 1 to 118 frames, layered ones among them."""
    maker = clip_maker(recipe, ensure_index(recipe))
    writer = IndexWriter(str(tmp_path_factory.mktemp("lengths") / "index.parquet"), "test")
    row = {name: getattr(maker.index.row(0), name) for name in maker.index.row(0).__slots__}
    for number in range(40):
        writer.add({**row, "name": f"{number}", "num_frames": 1 + 3 * number, "layers": (0, 2, 3, 4)[number % 4]})
    writer.close()
    return replace(maker, index=Index(writer.uri), plan=replace(maker.plan, num_videos=40))


@pytest.mark.parametrize("sampling", ["dense", "segments"])
@pytest.mark.parametrize("stride", [1, 4, 9])
def test_starts_of_many_slots_are_those_that_each_is_given(lengths: ClipMaker, sampling: Any, stride: int) -> None:
    maker = replace(lengths, spec=replace(lengths.spec, sampling=sampling, stride=stride))
    facts = VideoFacts(maker.index.numbers("num_frames"), maker.index.numbers("layers"))
    starts = maker.own_starts(7, 127, maker.plan.videos(7, 127), facts)
    choices = [maker.choose(slot) for slot in range(7, 127)]
    assert starts.tolist() == [choice.start for choice in choices]
    assert all(maker.frames(choice)[0] == choice.start for choice in choices)


@pytest.mark.parametrize("sampling", ["dense", "segments"])
def test_the_frames_of_a_clip_are_those_of_the_sampler_and_a_function_of_slot_and_attempt(
    lengths: ClipMaker, sampling: Any
) -> None:
    maker = replace(lengths, spec=replace(lengths.spec, sampling=sampling, stride=4))
    for slot in range(60):
        choice = maker.choose(slot, slot % 3)
        frames, num_frames = maker.frames(choice), choice.video.num_frames
        assert frames == maker.frames(maker.choose(slot, slot % 3))
        assert len(frames) == 4 and frames[0] == min(frames) and max(frames) < num_frames
        if sampling == "dense":
            possible = {dense_training_frames(draw, num_frames, 4, 4) for draw in np.linspace(0, 0.9999, 500)}
            assert frames in possible
        else:
            length = num_frames // 4
            assert [frame // max(1, length) for frame in frames] == [0, 1, 2, 3] or not length
            assert segment_training_frames([0.0] * 4, num_frames)[0] == 0
        request = maker.request(choice)
        assert request.frames == frames
        assert not request.layers or not any(frame % request.layers for frame in frames)


def test_segment_clips_of_one_slot_do_not_move_all_frames_by_the_same(lengths: ClipMaker) -> None:
    maker = replace(lengths, spec=replace(lengths.spec, sampling="segments"))
    gaps = {tuple(np.diff(maker.frames(maker.choose(slot)))) for slot in range(40)}
    assert len(gaps) > 20


def test_frames_of_segments_are_decoded_as_they_were_named(generated: Path) -> None:
    """Each decoded frame is the video's own frame of that number, cut and scaled."""
    all_of_it = ("method.crop_area=[1,1]", "method.crop_ratio=[1,1]")
    recipe = labelled_recipe(generated, "run.name=segments", *PLAIN, *all_of_it, "method.sampling=segments")
    spec = stream_spec(recipe, 1, last_step=1)
    rows, maker = next(iter(local_blocks(spec, 0, 0))), clip_maker(recipe, spec.index_uri)
    for row in range(4):
        choice = maker.choose(row)
        data = storage.read(choice.video.uri)
        file = whole(data)
        every = replace(maker.request(choice), frames=tuple(range(choice.video.num_frames)), seek=None)
        (clip,), _ = decode_clip(file, every)
        assert (clip[list(maker.frames(choice))] == rows["frames"][row]).all()
