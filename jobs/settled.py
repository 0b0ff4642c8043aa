"""A recipe as a job takes it: its places mean the same in every process. Without Ray and torch."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from system import logs, storage
from system.data.labels import FOLDERS, IN_INDEX, labels_uri
from system.recipe import Recipe

Say = Callable[[str], None]

# Set by Ray in the driver of a submitted job.
SUBMITTED = "RAY_JOB_CONFIG_JSON_ENV_VAR"
# Values of options that may name a file, and name none.
NO_FILES = ("auto", IN_INDEX, FOLDERS)


def settled(recipe: Recipe, say: Say) -> Recipe:
    """Return a recipe whose local paths mean the same in every process.

    A submitted job works in a folder that is deleted with it, so there a relative `run.storage` is put under the home
    folder of the machine that the job runs on.
    """
    where, motion, start = recipe.run.storage, recipe.motion, recipe.train.init_from
    if not storage.is_s3(where):
        path = storage.local_path(where)
        if not path.is_absolute() and SUBMITTED in os.environ:
            path = Path.home() / path
            say(f"run.storage={where} is relative: this job keeps the run in {path}, on this machine alone")
        where = str(path.absolute())
    uri = recipe.data.uri if "://" in recipe.data.uri else storage.absolute(recipe.data.uri)
    weights = storage.absolute(motion.weights) if motion.weights and "://" not in motion.weights else motion.weights
    start = storage.absolute(start) if start and "://" not in start else start
    probe = recipe.probe
    sets = {name: getattr(probe, name) for name in ("uri", "test_uri")}
    lists = {name: getattr(probe, name) for name in ("labels", "test_labels")}
    places = {name: place and storage.absolute(place) for name, place in sets.items()}
    places |= {name: place and labels_uri(place) for name, place in lists.items()}
    method = {
        name: storage.absolute(value)
        for name, value in ((name, getattr(recipe.method, name)) for name in recipe.record.files)
        if value not in NO_FILES and "://" not in value
    }
    return recipe.model_copy(
        update={
            "method": recipe.method.model_copy(update=method),
            "run": recipe.run.model_copy(update={"storage": where}),
            "data": recipe.data.model_copy(update={"uri": uri}),
            "motion": motion.model_copy(update={"weights": weights}),
            "train": recipe.train.model_copy(update={"init_from": start}),
            "probe": probe.model_copy(update=places),
            # The workers do not have this process's environment.
            "telemetry": recipe.telemetry.model_copy(update={"logs": logs.style_of(recipe.telemetry.logs)}),
        }
    )
