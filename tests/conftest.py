"""What tests share: small recipes, generated videos, and a Ray session that cleans up after itself."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

# No token file in the home folder of whoever runs the tests; and Ray's workers, which stand back behind every other
# process (niceness 15), would get next to nothing of a machine on which other tests run.
RAY_SETTINGS = {"RAY_AUTH_MODE": "disabled", "RAY_worker_niceness": "0"}
os.environ.update(RAY_SETTINGS)  # before ray is imported anywhere

REPOSITORY = Path(__file__).parents[1]
RECIPES = REPOSITORY / "jobs" / "recipes"
# Real videos that lie beside the project where it is developed; users do not have them.
REAL_VIDEOS = REPOSITORY.parent / "shared" / "data"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave all tests that start Ray to one process, where tests are divided among several, and order them."""
    no_gpu = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if item.get_closest_marker("gpu") is not None and not torch.cuda.is_available():
            item.add_marker(no_gpu)
        if item.get_closest_marker("ray") is not None:
            item.add_marker(pytest.mark.xdist_group("ray"))
    # Those that share a session come last: it lives, and works a little, from the first of them to the end of all.
    items.sort(key=lambda item: "ray_session" in getattr(item, "fixturenames", ()))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuse versions of pytest and pytest-xdist that do not agree on groups: Ray would start in every process."""
    if not getattr(session.config.option, "loadgroup", False):
        return
    astray = [each.nodeid for each in session.items if each.get_closest_marker("ray") and "@ray" not in each.nodeid]
    if astray:
        raise pytest.UsageError(
            f"pytest {pytest.__version__} and this pytest-xdist do not keep the tests that start Ray in one process "
            f"({astray[0]}); install what requirements.lock names (`make setup`)"
        )


@pytest.fixture(autouse=True)
def one_torch_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage folder that already holds 16 small generated videos and their index."""
    from system.data.dataset import ensure_index
    from system.recipe import load_recipe

    storage = tmp_path_factory.mktemp("generated")
    recipe = load_recipe(RECIPES / "smoke.yaml", [*TINY, f"run.storage={storage}"])
    ensure_index(recipe)
    return storage


# The smallest run that still has every part: 4 frames of 32 px, 8 tokens of which 2 are seen.
TINY = [
    "data.uri=synthetic://moving?videos=16&frames=16&height=48&width=48",
    "data.num_frames=4",
    "data.size=32",
    "data.views=1",
    "model.depth=2",
    "model.decoder_depth=1",
    "model.width=48",
    "model.heads=3",
    "model.decoder_width=24",
    "model.decoder_heads=3",
    "method.mask_ratio=0.5",
    "train.global_batch=16",
    "train.micro_batch=4",
    "train.steps=8",
    "train.warmup_steps=2",
    "checkpoint.every_steps=4",
    "telemetry.tensorboard=false",
    "telemetry.picture_clips=2",
    "engine.name=torch",
]


@pytest.fixture
def real_videos() -> Path:
    if not REAL_VIDEOS.is_dir():
        pytest.skip("the real videos lie beside the project only where it is developed")
    return REAL_VIDEOS


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One local Ray for the tests that need no more than a session: small store, own folder, gone afterwards."""
    import ray

    from system.train.launch import ENVIRONMENT, START_NOTHING_AHEAD

    os.environ.update(ENVIRONMENT | START_NOTHING_AHEAD)
    folder = tempfile.mkdtemp(prefix="r", dir="/tmp")
    ray.init(
        address="local",
        num_cpus=8,
        object_store_memory=200_000_000,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": dict(ENVIRONMENT)},
        _temp_dir=folder,
    )
    yield
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)
