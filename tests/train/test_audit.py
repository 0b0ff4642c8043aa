from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jobs import audit as job
from jobs.cli import run as run_job
from system import storage
from system.data.columns import Batch
from system.data.dataset import ensure_index, run_uri
from system.data.index import Index
from system.recipe import Recipe
from system.train.audit import Audit, audit
from system.train.ledger import FOLDER, SegmentRef, history, segment_names, write_segment
from system.train.past import open_past
from tests.small import tiny_recipe
from tests.train.recorded import name_ledger, record_run

SPANS = [(1, 2), (2, 5), (1, 6)]
SMALL = ("data.num_frames=2", "train.global_batch=6", "data.views=2", "model.depth=1", "checkpoint.every_steps=2")


@pytest.fixture
def recipe(generated: Path, request: pytest.FixtureRequest) -> Recipe:
    name = "".join(each if each.isalnum() else "-" for each in request.node.name)
    return tiny_recipe(generated, f"run.name={name}", *SMALL)


@pytest.fixture(scope="module")
def ordinary(generated: Path) -> tuple[Recipe, SegmentRef]:
    """A run that nothing is wrong with, and its last segment."""
    recipe = tiny_recipe(generated, "run.name=ordinary", *SMALL)
    return recipe, record_run(recipe, SPANS)


@pytest.fixture(scope="module")
def wrong(generated: Path) -> Recipe:
    """A run that was given a wrong block."""
    recipe = tiny_recipe(generated, "run.name=wrong", *SMALL)
    record_run(recipe, SPANS[1:], another_ranks_block)
    return recipe


@pytest.fixture
def last(ordinary: tuple[Recipe, SegmentRef], recipe: Recipe) -> SegmentRef:
    """The last segment of `recipe`'s run, a copy of the ordinary one."""
    shutil.copytree(run_uri(ordinary[0]), run_uri(recipe))
    return ordinary[1]


def audited(recipe: Recipe) -> Audit:
    return audit(open_past(run_uri(recipe)))


def lines(found: Audit) -> str:
    return "\n".join(finding.line() for finding in found.findings)


def test_an_ordinary_run_is_clean_over_restarts_and_world_sizes(recipe: Recipe) -> None:
    record_run(recipe, [*SPANS, (1, 8)])
    found = audited(recipe)
    assert found.clean, lines(found)
    assert [(each.ranks, each.generation) for each in found.stretches] == [(1, 0), (2, 1), (1, 2), (1, 3)]
    assert [(each.epoch, each.slots, each.trained) for each in found.epochs] == [(0, 16, 16), (1, 8, 8)]
    assert found.verdict.startswith(
        "audit: clean: 8 steps, 24 slots once each, 0 by substitutes, 0 skipped; steps 0 to 7"
    )


def another_ranks_block(step: int, block: Batch) -> Batch:
    """In step 3 the first rank gets the block of the second one."""
    if step == 3 and block["slot"][0] == 9:
        return {**block, "slot": np.array([11, 11, -1, -1]), "weight": np.array([1, 1, 0, 0], np.float32)}
    return block


def test_one_wrong_block_fails_and_its_step_is_named(wrong: Recipe) -> None:
    found = audited(wrong)
    assert [finding.step for finding in found.findings] == [3]
    assert "step 3: its clips (slots 9 to 11): expected 6 clips" in lines(found)
    assert found.verdict == "audit: FAILED: 1 finding in step 3; steps 0 to 5 compared"


def test_a_repeated_step_fails_and_the_one_that_it_repeats_is_named(recipe: Recipe) -> None:
    seen: dict[int, Batch] = {}

    def again(step: int, block: Batch) -> Batch:
        seen[step] = block
        return {**seen[1], "step": block["step"]} if step == 2 else block

    record_run(recipe, [(1, 6)], again)
    found = audited(recipe)
    assert [finding.step for finding in found.findings] == [2]
    assert "the clips of step 1" in lines(found)


def with_bad_videos(recipe: Recipe, tmp_path: Path, videos: tuple[int, ...]) -> Recipe:
    """Copy the videos and damage some."""
    own = tiny_recipe(tmp_path, f"run.name={recipe.run.name}", *SMALL)
    index = Index(ensure_index(own))
    for video in videos:
        storage.write(index.row(video).uri, b"no video" * 100)
    return own


def test_a_bad_video_and_what_stood_in_for_it_are_listed(recipe: Recipe, tmp_path: Path) -> None:
    own = with_bad_videos(recipe, tmp_path, (3, 8))
    record_run(own, [(2, 4), (1, 6)])
    found = audited(own)
    assert found.clean, lines(found)
    assert [bad.video_id for bad in found.bad_videos] == [3, 8]
    assert all(bad.reason and bad.name.endswith(".mp4") for bad in found.bad_videos)
    names = {Index(ensure_index(own)).row(video).name for video in (3, 8)}
    stood = [name for bad in found.bad_videos for name in bad.stand_ins.values()]
    assert stood
    assert not names & set(stood)
    assert found.epochs[0].substituted == 2
    assert found.epochs[0].trained == 14


def test_a_slot_in_which_no_video_could_stand_is_skipped_and_counted(recipe: Recipe, tmp_path: Path) -> None:
    own = with_bad_videos(recipe, tmp_path, tuple(range(15)))
    record_run(own, [(2, 2)])
    found = audited(own)
    assert found.clean, lines(found)
    assert found.epochs[0].skipped > 0
    assert found.epochs[0].skipped + found.epochs[0].substituted + found.epochs[0].trained == 6
    assert any(name is None for bad in found.bad_videos for name in bad.stand_ins.values())


def test_a_substitute_that_the_plan_does_not_give_fails(recipe: Recipe, tmp_path: Path) -> None:
    own = with_bad_videos(recipe, tmp_path, (3,))
    forged(own, record_run(own, [(1, 6)]), lambda note: replace(note, video_id=4))
    found = audited(own)
    assert not found.clean
    assert "attempt 0" in lines(found)
    assert "expected video 3, found video 4" in lines(found)


def test_a_substitution_without_a_reason_fails(recipe: Recipe, tmp_path: Path) -> None:
    own = with_bad_videos(recipe, tmp_path, (3,))
    forged(own, record_run(own, [(1, 6)]), lambda note: replace(note, reason=""))
    assert "expected a reason why its video was passed over, found none" in lines(audited(own))


def forged(recipe: Recipe, last: SegmentRef, change: object) -> None:
    """Write a run's last segment again with other notes, all checksums right."""
    segment = history(run_uri(recipe), last)[-1]
    notes = tuple(change(note) for note in segment.passed_over)  # type: ignore[operator]
    assert notes
    ref = write_segment(run_uri(recipe), replace(segment, passed_over=notes))
    name_ledger(recipe, segment.stop_step, ref, Index(ensure_index(recipe)))


@pytest.mark.parametrize("name", ["altered", "deleted"])
def test_a_segment_that_is_altered_by_one_byte_or_gone_fails(recipe: Recipe, last: SegmentRef, name: str) -> None:
    middle = history(run_uri(recipe), last)[-1].previous
    assert middle is not None
    uri = storage.join(run_uri(recipe), FOLDER, middle.name)
    if name == "altered":
        data = bytearray(storage.read(uri))
        data[300] ^= 1
        storage.write(uri, bytes(data))
    else:
        storage.delete([uri])
    found = audited(recipe)
    assert [finding.step for finding in found.findings] == [4]
    assert middle.name in lines(found)
    assert "checksum" in lines(found) if name == "altered" else "gone" in lines(found)


def test_a_damaged_newest_segment_fails_whether_or_not_an_older_checkpoint_is_whole(
    recipe: Recipe, last: SegmentRef, capsys: pytest.CaptureFixture[str]
) -> None:
    storage.delete([storage.join(run_uri(recipe), FOLDER, last.name)])
    assert code_of("--run", run_uri(recipe)) == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith("audit: FAILED: ")
    record_run(recipe, SPANS[:2])
    found = audited(recipe)
    assert found.steps == 5
    assert [finding.step for finding in found.findings] == [5]
    assert "the chain ends here" in lines(found)


def test_a_forged_chain_fails(recipe: Recipe, last: SegmentRef) -> None:
    """The middle segment is written anew with other records; the last one still names the old link."""
    *_, middle, newest = history(run_uri(recipe), last)
    records = middle.records.copy()
    records[0, 2] += np.uint64(1)
    ref = write_segment(run_uri(recipe), replace(middle, records=records))
    assert newest.previous is not None
    body = json.loads(storage.read(storage.join(run_uri(recipe), FOLDER, last.name)))
    body["previous"] = {**ref.as_dict(), "chain": newest.previous.chain}
    data = json.dumps(body).encode()
    storage.write(storage.join(run_uri(recipe), FOLDER, last.name), data)
    relinked = SegmentRef(last.name, hashlib.sha256(data).hexdigest(), last.chain)
    name_ledger(recipe, 6, relinked, Index(ensure_index(recipe)))
    assert "does not end in the link that is named" in lines(audited(recipe))


def test_a_gap_between_segments_fails(recipe: Recipe, last: SegmentRef) -> None:
    newest = history(run_uri(recipe), last)[-1]
    middle = history(run_uri(recipe), newest.previous)[-1]
    ref = write_segment(run_uri(recipe), replace(newest, previous=middle.previous))
    name_ledger(recipe, 6, ref, Index(ensure_index(recipe)))
    assert "step 5: the segment after step 1: expected to start at step 2, found step 5" in lines(audited(recipe))


def test_a_step_that_was_not_trained_is_listed_and_its_slots_count_as_skipped(recipe: Recipe, last: SegmentRef) -> None:
    segment = replace(history(run_uri(recipe), last)[-1], not_trained={5: "the loss was not finite"})
    ref, index = write_segment(run_uri(recipe), segment), Index(ensure_index(recipe))
    name_ledger(recipe, 6, ref, index)
    assert "updates of the optimizer: expected 5, one for each step that was trained, found 6" in lines(audited(recipe))
    name_ledger(recipe, 6, ref, index, untrained=1)
    found = audited(recipe)
    assert found.clean, lines(found)
    assert found.not_trained == {5: "the loss was not finite"}
    assert [each.skipped for each in found.epochs] == [1, 2]


def test_segments_of_lost_steps_are_reported_and_are_no_failure(recipe: Recipe, last: SegmentRef) -> None:
    lost = history(run_uri(recipe), last)[-1]
    write_segment(run_uri(recipe), replace(lost, stop_step=7, records=np.repeat(lost.records, 2, 0)))
    found = audited(recipe)
    assert found.clean
    assert [name[:17] for name in found.lost] == ["00000005-00000007"]
    assert len(segment_names(run_uri(recipe))) == 4


def test_of_a_long_history_the_newest_part_alone_can_be_read(recipe: Recipe, last: SegmentRef) -> None:
    run = run_uri(recipe)
    oldest = history(run, last)[1].previous
    assert oldest is not None
    Path(run, "ledger", oldest.name).unlink()
    assert not audited(recipe).clean
    for newest, first in ((1, 5), (3, 5), (4, 5), (6, 2)):
        past = open_past(run, newest=newest)
        assert past.segments[0].first_step == past.first_step == first
        found = audit(past, first)
        assert (found.clean, found.lost) == (True, ()), lines(found)
        assert found.verdict.startswith(f"audit: clean: steps {first} to 5, {3 * (6 - first)} slots once each")


def test_the_range_limits_what_is_compared_and_the_verdict_says_so(wrong: Recipe) -> None:
    found = audit(open_past(run_uri(wrong)), 4)
    assert found.clean
    assert found.verdict.endswith("steps 4 to 5 compared")
    assert not audit(open_past(run_uri(wrong)), 2, 4).clean


def code_of(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        run_job(job.main, arguments)
    return int(str(ended.value.code))


def test_the_job_ends_with_the_verdict_and_its_exit_code(
    recipe: Recipe, wrong: Recipe, last: SegmentRef, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert last.name.startswith("00000005-00000006")
    target = tmp_path / "audit.json"
    assert code_of("--run", run_uri(recipe), "--json", str(target)) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("audit: clean: 6 steps")
    assert json.loads(target.read_text())["clean"]
    assert code_of("--run", wrong.run.name, "--storage", wrong.run.storage) == 1
    *_, finding, verdict = capsys.readouterr().out.splitlines()
    assert finding.startswith("step 3: its clips")
    assert verdict.startswith("audit: FAILED: 1 finding in step 3")


def test_a_run_without_a_ledger_and_steps_that_are_not_there_are_user_errors(
    recipe: Recipe, last: SegmentRef, capsys: pytest.CaptureFixture[str]
) -> None:
    assert code_of("--run", "/nowhere/at-all") == 2
    assert code_of("--run", run_uri(recipe), "--from-step", "6") == 2
    assert "the run's history has 0 to 5" in capsys.readouterr().err
    segment = history(run_uri(recipe), last)[-1]
    name_ledger(recipe, segment.stop_step, None, Index(ensure_index(recipe)))
    assert code_of("--run", run_uri(recipe)) == 2
    assert "names no ledger" in capsys.readouterr().err
