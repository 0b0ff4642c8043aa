from __future__ import annotations

from pathlib import Path

from jobs.live import state_of
from system.data.dataset import ensure_index, run_uri
from system.monitoring.series import SERIES
from system.train.goodput import Book
from system.train.launch import open_run
from system.train.progress import Progress
from system.train.standing import Standing
from system.train.watch import Watch
from tests.small import tiny_recipe
from tests.train.test_readings import VALUES, Kept


def test_a_checkpoint_that_is_committed_is_told_with_the_next_step() -> None:
    standing = Standing(ranks=1, kept=4)
    assert standing.after(Progress(step=7))["checkpoint"] == 4
    standing.kept(Progress(step=8))
    assert standing.after(Progress(step=9))["checkpoint"] == 8


def test_every_series_of_the_drivers_is_told(generated: Path) -> None:
    recipe = tiny_recipe(generated, "run.name=watched", "telemetry.price_per_hour=3.5")
    kept, said = Kept(), list[str]()
    state = open_run(recipe, ensure_index(recipe), said.append)
    book = Book(run_uri(recipe), 1, 0.0)
    book.begin()
    with Watch(recipe, state, book, kept, said.append) as watch:
        watch.probed([{"step": 8, "probe/knn_top1": 0.5}])
        watch.saw({**VALUES, "mfu": 0.4, "standing": Standing(1, 0).after(Progress(step=12))})
    assert {name for name, *_ in kept.values} == {each.name for each in SERIES.values() if each.by == "driver"}
    assert kept.values["tubelet_step",] == 12
    assert not said


def test_what_workers_said_who_are_gone_is_not_told_of_those_that_start_in_their_place(generated: Path) -> None:
    recipe = tiny_recipe(generated, "run.name=again")
    book = Book(run_uri(recipe), 1, 0.0)
    watch = Watch(recipe, open_run(recipe, ensure_index(recipe), print), book, Kept(), print)
    book.begin()
    watch.saw({**VALUES, "step": 1, "told_at": 0.0, "standing": Standing(2, 0).after(Progress(step=2))})
    assert (watch.live().workers, watch.live().loss) == (2, 0.5)
    assert state_of(watch.live()).startswith("no step for ")
    book.end(failed=True)
    book.begin()
    again = watch.live()
    assert (again.workers, again.loss, again.step) == (None, None, 2)
    assert state_of(again) == "starting again"
    watch.saw({**VALUES, "step": 1, "standing": Standing(1, 0).after(Progress(step=2))})
    assert (watch.live().workers, state_of(watch.live())) == (1, "training")


def test_a_new_checkpoint_makes_the_age_begin_anew(generated: Path) -> None:
    recipe = tiny_recipe(generated, "run.name=aged")
    kept = Kept()
    state = open_run(recipe, ensure_index(recipe), print)
    watch = Watch(recipe, state, Book(run_uri(recipe), 1, 0.0), kept, print)
    watch._kept_at = 0.0
    watch.saw({**VALUES, "standing": Standing(1, 0).after(Progress(step=3))})
    watch.export()
    assert kept.values["tubelet_checkpoint_age_seconds",] > 1000
    watch.saw({**VALUES, "standing": Standing(1, 4).after(Progress(step=5))})
    watch.export()
    assert kept.values["tubelet_checkpoint_age_seconds",] < 1000


def test_a_sink_that_breaks_is_told_and_ends_nothing(generated: Path) -> None:
    class Broken(Kept):
        def set(self, name: str, value: float, **labels: str) -> None:
            raise OSError("no agent")

    recipe = tiny_recipe(generated, "run.name=unwatched")
    said: list[str] = []
    state = open_run(recipe, ensure_index(recipe), said.append)
    with Watch(recipe, state, Book(run_uri(recipe), 1, 0.0), Broken(), said.append):
        pass
    assert said == ["no more metrics are exported: no agent"]
