"""Does a method learn motion? `python -m jobs.learning_check --out FOLDER`; docs/methods/learning_check.md."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from jobs.cli import count, duration, parser, run, say
from system.data.hardware import processor
from system.errors import RecipeError
from system.methods import METHODS
from system.recipe import Recipe, load_recipe

RECIPE = Path(__file__).parent / "recipes" / "learning-check.yaml"
FINE_TUNING = RECIPE.with_name("learning-check-finetune.yaml")

# What a method's section says besides what all methods share.
OVERRIDES: dict[str, tuple[str, ...]] = {
    # Differences as they are would be a thousandth of the codes' loss.
    "mam2": ("method.normalize_target=true",),
}
# Steps, and clips of each set, of the short form.
QUICK = ("train.steps=40", "train.warmup_steps=5")
QUICK_FINE_TUNING = ("train.epochs=null", "train.warmup_epochs=null", "train.steps=2")
QUICK_CLIPS = 100


@dataclass(frozen=True, slots=True)
class Task:
    """One trial for a process of its own; `method` is None for the encoder that is not trained."""

    method: str | None
    seed: int
    overrides: tuple[str, ...]
    out: str
    quick: bool
    motion: str


def recipe_of(task: Task) -> Recipe:
    """Return the recipe of a trial: all trials differ in seed and method only."""
    name = task.method or "videomae"
    return load_recipe(
        RECIPE,
        [
            *(QUICK if task.quick else ()),
            f"method.name={name}",
            *OVERRIDES.get(name, ()),
            *(task.overrides if task.method else _for_all_methods(task.overrides)),
            f"run.seed={task.seed}",
            f"run.name={name}-{task.seed}",
            f"run.storage={task.out}/runs",
        ],
    )


def fine_tuning_recipe(task: Task) -> Recipe:
    """Return the recipe of every fine-tuning; clips, model and seed are those of the trial's own."""
    return load_recipe(FINE_TUNING, QUICK_FINE_TUNING if task.quick else ())


def _for_all_methods(overrides: Sequence[str]) -> list[str]:
    """Leave out what is said of some methods only."""
    shared = set.intersection(*(set(method.options.model_fields) for method in METHODS.values()))
    return [text for text in overrides if not text.startswith("method.") or text[7:].partition("=")[0] in shared]


def settings_of(task: Task) -> Any:
    """Return how much is done in a trial."""
    from system.evaluate.trial import Settings  # noqa: PLC0415  torch is imported when the arguments are right

    settings = Settings(motion=task.motion)
    if not task.quick:
        return settings
    return replace(settings, unlabelled=QUICK_CLIPS, labelled=QUICK_CLIPS, test=QUICK_CLIPS, masks=QUICK_CLIPS // 5)


def do(task: Task) -> dict[str, Any]:
    """Carry out one trial, on one thread."""
    import torch  # noqa: PLC0415

    from system.evaluate.trial import load_sets, run_trial, run_untrained  # noqa: PLC0415

    torch.set_num_threads(1)
    sets = load_sets(Path(task.out) / "clips")
    trial = run_untrained if task.method is None else run_trial
    return trial(recipe_of(task), fine_tuning_recipe(task), settings_of(task), sets)


def tasks_of(methods: Sequence[str], seeds: int, given: Any) -> list[Task]:
    """List the trials, seed by seed, so that an early look compares like with like."""
    out = str(Path(given.out).absolute())
    return [
        Task(method, seed, tuple(given.overrides), out, given.quick, given.motion)
        for seed in range(seeds)
        for method in (None, *methods)
    ]


def carry_out(tasks: Sequence[Task], processes: int) -> list[dict[str, Any]]:
    """Carry out trials side by side and return their results in the order of the tasks."""
    done: dict[Task, dict[str, Any]] = {}

    for out in {task.out for task in tasks}:
        (Path(out) / "trials.jsonl").unlink(missing_ok=True)  # of an earlier check

    def take(task: Task, trial: dict[str, Any]) -> None:
        done[task] = trial
        with (Path(task.out) / "trials.jsonl").open("a") as file:  # so that an interrupted check leaves something
            file.write(json.dumps(trial) + "\n")
        say(_line(trial, len(done), len(tasks)))

    if processes == 1:
        for task in tasks:
            take(task, do(task))
        return [done[task] for task in tasks]
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(do, task): task for task in tasks}
        for future in as_completed(futures):
            take(futures[future], future.result())
    return [done[task] for task in tasks]


def _line(trial: dict[str, Any], number: int, total: int) -> str:
    points = ", ".join(
        f"{point['clips']} clips: probe {point['probe']:.1%}, fine-tuned {point['fine_tuned']:.1%}"
        for point in trial["points"]
    )
    losses = "".join(f"; {name} {first:.4g} -> {last:.4g}" for name, (first, last) in trial.get("losses", {}).items())
    return f"[{number}/{total}] {trial['method']} seed {trial['seed']}: {points}{losses}"


def other_masks(task: Task) -> dict[str, float]:
    """Return the leakage of masks that no method of the check has, and of MGMAE's with the true motion."""
    from system.evaluate.trial import load_sets, mask_leakage  # noqa: PLC0415

    scenes = load_sets(Path(task.out) / "clips")["masks"]

    def of(motion: str, *overrides: str) -> float:
        return mask_leakage(load_recipe(RECIPE, [*_for_all_methods(task.overrides), *overrides]), scenes, motion)

    return {
        "tube": of("truth"),
        "random in every slot": of("truth", "method.mask=random"),
        "moving, true motion": of("truth", "method.name=mgmae"),
        "moving, as released, true motion": of("truth", "method.name=mgmae", "method.direction=release"),
        "moving, motion vectors": of("codec", "method.name=mgmae"),
        "moving, dis": of("dis", "method.name=mgmae"),
    }


def machine() -> str:
    """Describe the machine in a few words."""
    import torch  # noqa: PLC0415

    return f"{os.cpu_count()} CPU cores ({processor()}), torch {torch.__version__}"


def check(given: Any, methods: Sequence[str]) -> dict[str, Any]:
    """Carry out the check and return its result as plain values."""
    from system.data.scene_set import LABELS  # noqa: PLC0415
    from system.evaluate.provenance import commit  # noqa: PLC0415
    from system.evaluate.trial import load_sets, make_sets, raw_pixels, settings_as_values  # noqa: PLC0415

    began = time.monotonic()
    tasks = tasks_of(methods, 1 if given.quick else given.seeds, given)
    recipes = [recipe_of(task) for task in tasks]  # all of them, so that a wrong override is told now
    settings = settings_of(tasks[0])
    clips = Path(tasks[0].out) / "clips"
    make_sets(recipes[0], settings, clips)
    say(f"clips rendered in {duration(time.monotonic() - began)}")
    trials = carry_out(tasks, given.processes)
    return {
        "command": " ".join(["python -m jobs.learning_check", *given.told]),
        "commit": commit(),
        "machine": machine(),
        "labels": len(LABELS),
        "settings": settings_as_values(settings),
        "recipe": recipes[0].model_dump(mode="json"),
        "fine_tuning": fine_tuning_recipe(tasks[0]).model_dump(mode="json"),
        "overrides": {name: list(values) for name, values in OVERRIDES.items()},
        "trials": trials,
        "leakage": other_masks(tasks[0]),
        "raw_pixels": raw_pixels(load_sets(clips)),
        "seconds": time.monotonic() - began,
    }


def main(arguments: Sequence[str]) -> int:
    """Run the job."""
    options = parser("learning_check", "Pre-train a tiny model with every method on generated clips, and compare.")
    options.add_argument("--out", required=True, help="folder for clips, results.json and results.md")
    options.add_argument("--methods", nargs="+", default=list(METHODS), help="default: all")
    options.add_argument("--seeds", type=count, default=3)
    options.add_argument("--motion", default="dis", help="truth, codec, dis (default) or frame_difference")
    options.add_argument("--processes", type=count, default=2, help="trials side by side, one core each; default 2")
    options.add_argument(
        "--quick", action="store_true", help="one seed and a few steps: that it runs, not what it says"
    )
    options.add_argument("--set", dest="overrides", nargs="+", default=[], metavar="section.field=value")
    given = options.parse_args(arguments)
    unknown = [name for name in given.methods if name not in METHODS]
    if unknown:
        raise RecipeError(f"--methods: there is no method {unknown[0]}; there are {', '.join(METHODS)}")
    from system.evaluate.scene_motion import SOURCES  # noqa: PLC0415
    from system.report.learning import markdown  # noqa: PLC0415

    if given.motion not in SOURCES:
        raise RecipeError(f"--motion is one of {', '.join(SOURCES)}, got {given.motion}")
    given.told = list(arguments)
    result = check(given, given.methods)
    text = markdown(result)
    out = Path(given.out)
    (out / "results.json").write_text(json.dumps(result, indent=1))
    (out / "results.md").write_text(text)
    say(text)
    return 0


if __name__ == "__main__":
    run(main)
