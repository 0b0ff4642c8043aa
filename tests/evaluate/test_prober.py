"""Probes of a run's checkpoints: the numbers of `jobs.probe`, weights that are held, videos that are decoded once."""

from __future__ import annotations

import json
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs import probe
from jobs.checks import tell_probe
from system.data.dataset import ensure_index, run_uri
from system.data.index import Index
from system.errors import DataError, WeightsError
from system.evaluate import online as online_module
from system.evaluate.encoders import encoder_digest, load_encoder
from system.evaluate.labelled_sets import online_sides
from system.evaluate.online import OnlineProbe
from system.evaluate.prober import Prober, write_board
from system.recipe import Recipe, dump_recipe
from system.train.manifest import step_uri
from system.train.probed import read_probes
from tests.jobs.test_arguments import code_of
from tests.jobs.test_embed import halves
from tests.small import index_elsewhere, tiny_recipe
from tests.train.ranks import train_here


@pytest.fixture(scope="module")
def recipe(generated: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """Of a run with the checkpoints 4 and 8, which is probed with two halves of its videos."""
    first = tiny_recipe(generated, "run.name=probed", "resources.num_workers=1")
    index = ensure_index(first)
    train, test = halves(tmp_path_factory.mktemp("lists"), Path(index))
    sets = [f"probe.uri={index}", f"probe.test_uri={index}", f"probe.labels={train}", f"probe.test_labels={test}"]
    own = ["probe.only_listed=true", "probe.kinds=[knn,linear]", "probe.test_views=2x1", "probe.pool=slots"]
    made = tiny_recipe(generated, "run.name=probed", "resources.num_workers=1", *sets, *own)
    train_here(made)
    Path(run_uri(made), "recipe.yaml").write_text(dump_recipe(made))
    return made


@pytest.fixture(scope="module")
def prober(recipe: Recipe) -> Prober:
    return Prober(recipe, online_sides(recipe, print), "cpu")


def test_numbers_are_those_of_the_job_on_the_same_weights_and_sets(
    recipe: Recipe, prober: Prober, tmp_path: Path
) -> None:
    section, out = recipe.probe, tmp_path / "out"
    sets = ["--train", str(section.uri), "--test", str(section.uri), "--only-listed"]
    lists = ["--train-labels", section.labels, "--test-labels", str(section.test_labels)]
    how = ["--local", "--probes", "linear,knn", "--pool", "slots", "--test-views", "2x1", "--step", "8"]
    assert code_of(probe.main, "--run", run_uri(recipe), *sets, *lists, *how, "--out", str(out)) == 0
    expected = json.loads((out / "probe.json").read_text())
    row = prober.probe(8)
    assert row is not None
    assert json.loads(json.dumps(row["probes"])) == expected["probes"]
    assert row["weights_sha256"] == expected["weights_sha256"]
    assert row["probe/linear_top1"] == expected["probes"]["linear"]["top1"]
    assert row["probe/knn_top1"] == expected["probes"]["knn"]["5"]["top1"], "of eight videos five are the most"
    assert (row["step"], row["classes"], row["videos"]) == (8, 2, {"train": 8, "test": 8})


def test_weights_that_are_held_are_probed_when_their_checkpoint_is_gone(recipe: Recipe, prober: Prober) -> None:
    folder = Path(step_uri(run_uri(recipe), 4))
    away = folder.with_name("away")
    prober.hold(4)
    shutil.move(folder, away)
    try:
        row = prober.probe(4)
        assert row is not None
        assert row["step"] == 4
        with pytest.raises(WeightsError, match="step_00000004"):
            Prober(recipe, online_sides(recipe, print), "cpu").probe(4)
    finally:
        shutil.move(away, folder)


def test_weights_that_are_held_are_read_again_when_the_trainers_wrote_that_step_anew(recipe: Recipe) -> None:
    prober = Prober(recipe, online_sides(recipe, print), "cpu")
    folder, other = (Path(step_uri(run_uri(recipe), step)) for step in (4, 8))
    away = folder.with_name("away")
    prober.hold(4)
    shutil.move(folder, away)
    try:
        shutil.copytree(other, folder)
        row = prober.probe(4)
        assert row is not None
        assert row["weights_sha256"] == encoder_digest(load_encoder(recipe, str(other)))
    finally:
        shutil.rmtree(folder)
        shutil.move(away, folder)


def test_a_checkpoint_is_probed_with_its_own_weights_and_the_next_stays_held_when_both_are_read_at_once(
    recipe: Recipe, prober: Prober, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = {step: step_uri(run_uri(recipe), step) for step in (4, 8)}
    own = {step: encoder_digest(load_encoder(recipe, folder)) for step, folder in folders.items()}
    both = Prober(recipe, online_sides(recipe, print), "cpu")
    both._kept = prober._kept
    manifest_of = Prober._manifest

    def held_meanwhile(self: Prober, step: int) -> bytes | None:
        """Finish a hold of step 8 while step 4 is looked at."""
        if step == 4:
            thread = threading.Thread(target=self.hold, args=(8,))
            thread.start()
            thread.join()
        return manifest_of(self, step)

    for first in ("held", "read"):
        if first == "held":
            both.hold(4)
        with monkeypatch.context() as patched:
            patched.setattr(Prober, "_manifest", held_meanwhile)
            row = both.probe(4)
        assert row is not None
        assert row["weights_sha256"] == own[4], first
        away = Path(folders[8]).with_name("away")
        shutil.move(folders[8], away)
        try:
            following = both.probe(8, known={**row, "weights_sha256": own[8]})
        finally:
            shutil.move(away, folders[8])
        assert following is None, "step 8 is held, and has the weights that are known"


def test_files_that_the_index_rejected_are_wrong_in_every_probe(
    recipe: Recipe, prober: Prober, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = prober.probe(8)
    test = replace(prober._sides.test, lost=np.zeros(8, np.int64))
    monkeypatch.setattr(prober, "_sides", replace(prober._sides, test=test))
    after = prober.probe(8)
    assert before is not None
    assert after is not None
    assert (before["rejected"], after["rejected"]) == (0, 8)
    assert after["probe/linear_top5"] == before["probe/linear_top5"] / 2 > 0


def test_the_same_weights_are_not_probed_twice_and_videos_are_decoded_once(
    recipe: Recipe, prober: Prober, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prober.probe(8)
    assert first is not None
    monkeypatch.setattr(Prober, "_decode", lambda *_: pytest.fail("it decodes again"))
    again = prober.probe(8)
    assert again is not None
    assert again["probes"] == first["probes"]
    assert prober.probe(8, known=first) is None
    other = prober.probe(4, known=first)
    assert other is not None
    assert other["weights_sha256"] != first["weights_sha256"]


def test_weights_are_probed_anew_where_what_they_are_measured_with_has_changed(recipe: Recipe, prober: Prober) -> None:
    before = prober.probe(8)
    assert before is not None
    changed = recipe.model_copy(update={"probe": recipe.probe.model_copy(update={"kinds": ["knn"]})})
    other = Prober(changed, prober._sides, "cpu")
    other._kept = prober._kept
    after = other.probe(8, known=before)
    assert after is not None
    assert after["weights_sha256"] == before["weights_sha256"]
    labels = prober._sides.train.labels[::-1].copy()
    swapped = replace(prober._sides, train=replace(prober._sides.train, labels=labels))
    meant = [each.measured() for each in (prober, other, Prober(recipe, swapped, "cpu"))]
    assert len(set(meant)) == 3


def test_a_run_that_goes_on_is_told_what_is_wrong_with_its_probe_and_a_new_one_is_refused(
    recipe: Recipe, tmp_path: Path
) -> None:
    section = recipe.probe.model_copy(update={"labels": "/nowhere/list.txt"})
    broken = recipe.model_copy(update={"probe": section})
    said: list[str] = []
    tell_probe(broken, said.append)
    assert said == ["probe: the run goes on without, /nowhere/list.txt: there is no such list of labels"]
    new = broken.model_copy(update={"run": recipe.run.model_copy(update={"storage": str(tmp_path)})})
    with pytest.raises(DataError, match="no such list"):
        tell_probe(new, print)


@pytest.mark.parametrize("end", ["the trainers look for machines", "the job ends"])
def test_a_probe_that_waits_for_storage_holds_nobody_up_and_starts_nothing_afterwards(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    asking = recipe.model_copy(update={"probe": recipe.probe.model_copy(update={"cpus": 1})})
    waits, goes_on = threading.Event(), threading.Event()
    started: list[str] = []

    def slow_storage(*_: object) -> None:
        waits.set()
        goes_on.wait(60)

    monkeypatch.setattr(online_module, "online_sides", slow_storage)
    monkeypatch.setattr(online_module, "start_actor", lambda *_: started.append("an actor"))
    with OnlineProbe(asking, print, lambda *_: None) as online:
        online.saw({"standing": {"checkpoint": 8}})
        assert waits.wait(60)
        if end != "the job ends":
            way = threading.Thread(target=online.make_way, daemon=True)
            way.start()
            way.join(10)
            held_up = way.is_alive()
            goes_on.set()
            way.join()
            assert not held_up
    goes_on.set()
    online._thread.join()
    assert started == []


class LostClaim:
    """A claim on a run that another job has taken."""

    lost = "taken"

    def next_generation(self) -> int:
        return 1


def test_the_last_probe_is_not_waited_for_when_another_job_has_the_run(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient = recipe.model_copy(update={"probe": recipe.probe.model_copy(update={"wait_s": 600})})
    goes_on = threading.Event()
    monkeypatch.setattr(online_module, "online_sides", lambda *_: goes_on.wait(60))
    monkeypatch.setattr(online_module, "start_actor", lambda *_: None)
    with OnlineProbe(patient, print, lambda *_: None, LostClaim()) as online:
        waiting = threading.Thread(target=online.finish, args=(threading.Event(),), daemon=True)
        waiting.start()
        waiting.join(20)
        still = waiting.is_alive()
        online._end.set()
        goes_on.set()
    assert not still


def test_a_set_of_which_too_much_cannot_be_read_is_refused_with_the_first_reason(
    recipe: Recipe, tmp_path: Path
) -> None:
    nothing = tmp_path / "nothing.mp4"
    nothing.write_bytes(b"")
    index = index_elsewhere(recipe, tmp_path / "index.parquet", dict.fromkeys(range(0, 16, 4), nothing))
    lists = [tmp_path / "train.txt", tmp_path / "test.txt"]
    for part, path in enumerate(lists):
        rows = [video for video in Index(index) if video.video_id % 2 == part]
        path.write_text("".join(f"{video.name} {video.video_id // 2 % 2}\n" for video in rows))
    places = {"uri": index, "test_uri": index, "labels": str(lists[0]), "test_labels": str(lists[1])}
    broken = recipe.model_copy(update={"probe": recipe.probe.model_copy(update=places)})
    with pytest.raises(DataError, match=r"4 of the 8 train videos of the probe cannot be read"):
        Prober(broken, online_sides(broken, print), "cpu").probe(8)


def test_tensorboard_gets_every_curve_of_every_probe(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    rows = [{"step": step, "time": 1e9 + step, "probe/knn_top1": step / 10, "classes": 2} for step in (4, 8)]
    board = EventAccumulator(str(write_board(str(tmp_path), rows)))
    board.Reload()
    assert board.Tags()["scalars"] == ["probe/knn_top1"]
    found = [(each.step, round(each.value, 3)) for each in board.Scalars("probe/knn_top1")]
    assert found == [(4, 0.4), (8, 0.8)]


def test_a_probe_that_cannot_be_made_harms_nobody_and_is_told_once(recipe: Recipe, tmp_path: Path) -> None:
    section = recipe.probe.model_copy(update={"labels": "/nowhere/list.txt"})
    run = recipe.run.model_copy(update={"storage": str(tmp_path)})
    broken = recipe.model_copy(update={"probe": section, "run": run})
    said: list[str] = []
    told: list[tuple[int, Any]] = []
    shutil.copytree(run_uri(recipe), run_uri(broken))
    with OnlineProbe(broken, said.append, lambda rows, new: told.append((len(rows), new))) as online:
        online.saw({"step": 5, "standing": {"checkpoint": 4}})
        online.make_way()
        for _ in range(100):
            if len(told) > 1:
                break
            threading.Event().wait(0.1)
        online.finish(threading.Event())
    assert [each["step"] for each in read_probes(run_uri(broken))] == [4, 8]
    reasons = {each["error"] for each in read_probes(run_uri(broken))}
    assert reasons == {"DataError: /nowhere/list.txt: there is no such list of labels"}
    assert told[0] == (0, None)
    assert [line for line in said if "failed" in line] == [
        "the probe of step 4 failed, the run goes on: DataError: /nowhere/list.txt: there is no such list of labels"
    ]
