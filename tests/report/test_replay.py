from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torchvision.models.optical_flow import raft_small

from jobs import replay as job
from jobs.cli import run as run_job
from system import storage
from system.data.dataset import ensure_index, run_uri
from system.data.index import Index
from system.errors import RunError
from system.recipe import Recipe
from system.report.replay import replay, weights_for
from system.report.replayed import Replay
from system.train.audit import audit
from system.train.hooks import Terms
from system.train.ledger import MASKS, PIXELS, Segment
from system.train.past import Past, open_past
from tests.small import labelled_recipe, tiny_recipe
from tests.train.ranks import train_here
from tests.train.recorded import keep_recipe

BAD = 3
QUICK = ("data.views=2", "train.global_batch=8", "checkpoint.every_steps=2", "checkpoint.keep=2", "train.steps=8")


def trained(folder: Path, *overrides: str, bad: bool = False, terms: Terms | None = None) -> Recipe:
    recipe = tiny_recipe(folder, "run.name=replayed", "resources.num_workers=1", *QUICK, *overrides)
    keep_recipe(recipe)
    if bad:
        uri = Index(ensure_index(recipe)).row(BAD).uri
        whole = storage.read(uri)
        storage.write(uri, b"no video" * 100)
    train_here(recipe, terms=terms)
    if bad:
        storage.write(uri, whole)
    return recipe


@pytest.fixture(scope="module")
def with_substitute(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A run over a video that could not be read then, and can be now; its third step was passed over."""
    folder = tmp_path_factory.mktemp("replayed")
    return trained(folder, bad=True, terms=Terms(skips={2: "the loss was not finite"}))


def substituted(past: Past) -> tuple[int, int]:
    """Return a slot that a spare stood in, and its step."""
    slot = next(slot for slot, passed in past.notes.items() if len(passed) == 1)
    return slot, slot // past.recipe.slots_per_step


def code_of(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        run_job(job.main, arguments)
    return int(str(ended.value.code))


def test_every_step_is_rebuilt_as_it_was_the_recorded_substitute_in_its_slot(with_substitute: Recipe) -> None:
    past = open_past(run_uri(with_substitute))
    slot, step = substituted(past)
    for each in range(8):
        assert replay(past, each).verdict == f"replay: step {each} equal: identities, pixels, masks"
    found = replay(past, step)
    stood = [clip for clip in found.clips if clip.slot == slot]
    assert [(clip.attempt, clip.view) for clip in stood] == [(1, 0), (1, 1)]
    assert stood[0].video != past.maker.index.row(BAD).name
    assert len(found.clips) == 8


def test_the_losses_are_those_of_the_weights_that_are_named(with_substitute: Recipe) -> None:
    past = open_past(run_uri(with_substitute))
    assert replay(past, 7).weights_step == 6
    assert replay(past, 0).weights_step == 6  # older ones are gone: the oldest after it
    last, same = replay(past, 7, checkpoint=8), replay(past, 7)
    assert last.weights_step == 8
    assert all(clip.loss and np.isfinite(clip.loss) for clip in last.clips)
    assert [clip.loss for clip in last.clips] != [clip.loss for clip in same.clips]
    with pytest.raises(RunError, match=r"checkpoints of the steps \[6, 8\], --checkpoint 5 is none of them"):
        weights_for(run_uri(with_substitute), 7, 5, print)


def test_a_stand_in_that_cannot_be_read_now_is_named_and_not_replaced(with_substitute: Recipe) -> None:
    past = open_past(run_uri(with_substitute))
    slot, step = substituted(past)
    uri = past.maker.choose(slot, 1).video.uri
    whole = storage.read(uri)
    storage.write(uri, b"no video" * 100)
    try:
        found = replay(past, step)
    finally:
        storage.write(uri, whole)
    assert found.identities
    assert not found.pixels
    assert not found.as_recorded
    assert slot in found.gone
    assert all((clip.loss is None) == (clip.slot in found.gone) for clip in found.clips)
    assert "videos cannot be read now" in found.verdict


def test_a_labelled_step_is_rebuilt_with_its_augmentation_mixture_and_draws(tmp_path: Path) -> None:
    few = ("data.uri=synthetic://moving?videos=8&frames=16&height=48&width=48", *QUICK, "train.steps=2")
    recipe = labelled_recipe(tmp_path, "run.name=labelled", "resources.num_workers=1", *few)
    keep_recipe(recipe)
    uri = Index(ensure_index(recipe)).row(BAD).uri
    storage.write(uri, b"no video" * 100)
    train_here(recipe)
    past = open_past(run_uri(recipe))
    assert past.notes
    for step in range(2):
        found = replay(past, step)
        assert found.verdict == f"replay: step {step} equal: identities, pixels, masks"
        assert found.picture
    assert audit(past).clean
    other_label = changed(
        past, lambda segment: replace(segment, records=segment.records + np.eye(4, dtype="u8")[MASKS])
    )
    assert "masks" in replay(other_label, 0).verdict.split("differs:")[1]


def changed(past: Past, change: Callable[[Segment], Segment]) -> Past:
    return replace(past, segments=tuple(change(segment) for segment in past.segments))


def other_pixels(segment: Segment) -> Segment:
    records = segment.records.copy()
    records[:, PIXELS] += np.uint64(1)
    return replace(segment, records=records)


def test_other_pixels_are_an_error_only_with_the_same_decoder_build(with_substitute: Recipe) -> None:
    past = changed(open_past(run_uri(with_substitute)), other_pixels)
    found = replay(past, 1)
    assert not found.as_recorded
    assert "pixels (the same decoder build)" in found.verdict
    older = replay(
        changed(past, lambda segment: replace(segment, made=replace(segment.made, decoders={"pyav": "9.9"}))), 1
    )
    assert older.as_recorded
    assert "recorded with pyav 9.9; here" in older.verdict


def test_clips_that_are_not_those_recorded_are_an_error(with_substitute: Recipe) -> None:
    past = open_past(run_uri(with_substitute))
    _, step = substituted(past)
    found = replay(changed(past, lambda segment: replace(segment, passed_over=())), step)
    assert not found.identities
    assert not found.as_recorded
    assert replay(past, step).identities


def test_the_job_prints_the_clips_by_loss_and_draws_them(
    with_substitute: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    assert code_of("--run", run_uri(with_substitute), "--step", "2", "--hashes") == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "step 2 was not trained: the loss was not finite"
    losses = [float(line.split()[0]) for line in said[3:11]]
    assert losses == sorted(losses, reverse=True)
    assert all("pixels" in line and "mask" in line for line in said[3:11])
    assert said[-1] == "replay: step 2 equal: identities, pixels, masks"
    data = storage.read(storage.join(run_uri(with_substitute), "pictures", "replay_step_00000002.png"))
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    assert image.std() > 10


def test_a_step_that_was_not_reached_is_a_user_error(
    with_substitute: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    assert code_of("--run", run_uri(with_substitute), "--step", "8") == 2
    assert "the run's history has the steps 0 to 7" in capsys.readouterr().err


def test_masks_of_a_network_are_compared_token_by_token_where_they_differ(tmp_path: Path) -> None:
    weights = tmp_path / "raft.pth"
    torch.save(raft_small(weights=None).state_dict(), weights)
    recipe = trained(
        tmp_path,
        "data.uri=synthetic://moving?videos=4&frames=8&height=128&width=128",
        "data.size=128",
        "data.stride=1",
        "data.views=1",
        "motion.source=raft",
        "motion.updates=1",
        "method.name=mgmae",
        "train.global_batch=2",
        "train.steps=2",
        "train.warmup_steps=1",
        f"motion.weights={weights}",
    )
    past = open_past(run_uri(recipe))
    assert replay(past, 1).masks
    bits = 64

    def other_masks(segment: Segment) -> Segment:
        """Other masks, and the sample's first word turned over."""
        records = segment.records.copy()
        records[:, 3] += np.uint64(1)
        records[:, 4] = ~records[:, 4]
        return replace(segment, records=records)

    found: Replay = replay(changed(past, other_masks), 1)
    assert not found.masks
    assert found.share == 1 - bits / 256
    assert found.as_recorded
    assert "75.0% of the recorded tokens equal; made on cpu, here on cpu" in found.verdict
