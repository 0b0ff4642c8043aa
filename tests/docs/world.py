"""A small world in which the commands of the pages find what they name: videos, finished runs, weights, sequences.

Made once, by the jobs where they are quick, and by a training in this process, without Ray.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torchvision.models import optical_flow

from jobs import export, make_videos
from system.data.dataset import ensure_index, ensure_labels, run_uri
from system.models.tokenizer import Tokenizer, TokenizerConfig
from system.models.weight_files import read_weights
from system.recipe import Recipe, dump_recipe, load_recipe
from system.train.goodput import Book
from system.train.launch import open_run
from system.train.lease import Lease
from system.train.summary import write_summary
from tests.conftest import RECIPES
from tests.docs.ways import TRAINED
from tests.train.moments import TRAINING
from tests.train.ranks import train_here
from tests.train.recorded import keep_recipe

# What pages call a run, and where; of each kind one is trained.
PRETRAINED = ("runs/a", "runs/b", "runs/c", "runs/first", "bucket/runs/demo", "bucket/runs/mgmae")
PRETRAINED_TOO = ("bucket/runs/videomae-vitb-k400",)
FINE_TUNED = ("runs/first-tuned", "runs/finetune-k400-vitb", "bucket/runs/finetune-k400-vitb")
# Folders of videos; the last has no index yet.
TRAIN, TEST = ("bucket/k400/train", "bucket/k400-shards", "bucket/ssv2", "bucket/videos"), ("bucket/k400/val",)
SIZE = ("--frames", "24", "--height", "48", "--width", "64")


def make_world(folder: Path) -> None:
    """Fill a folder."""
    _ran(make_videos.main, "--out", f"{folder}/videos/train", "--videos", "22", "--seed", "1", *SIZE)
    _ran(make_videos.main, "--out", f"{folder}/videos/val", "--videos", "11", "--seed", "2", *SIZE)
    _ran(make_videos.main, "--masks", "--out", f"{folder}/davis", "--videos", "2", *SIZE, "--frames", "5")
    pretrained = _finished(_recipe(folder, "smoke", "demo"))
    tuned = _finished(ensure_labels(_recipe(folder, "finetune-smoke", "finetuned")))
    _copy(folder, "runs/demo", *PRETRAINED, *PRETRAINED_TOO)
    _copy(folder, "runs/finetuned", *FINE_TUNED)
    _copy(folder, "videos/train", *TRAIN)
    _copy(folder, "videos/val", *TEST, "videos/test")
    _copy(folder, "jobs/recipes", source=RECIPES)
    (folder / "bucket/videos/index.parquet").unlink()
    shutil.copy(folder / "videos/train/index.parquet", folder / "bucket/k400/index.parquet")
    _write_list(folder / "bucket/ssv2")
    _write_weights(folder, pretrained, tuned)


def _ran(main: Callable[[list[str]], int], *arguments: str) -> None:
    assert main(list(arguments)) == 0


def _recipe(folder: Path, name: str, run: str) -> Recipe:
    sizes = [each for each in TRAINED if name == "smoke" or "mask_ratio" not in each]
    place = [f"data.uri={folder}/videos/train", f"run.storage={folder}/runs", f"run.name={run}"]
    return load_recipe(RECIPES / f"{name}.yaml", [*sizes, *place, "resources.num_workers=1"])


def _finished(recipe: Recipe) -> Recipe:
    """Train a recipe to its end, and leave what a job leaves besides."""
    folder, began = run_uri(recipe), time.time()
    with Lease.acquire(folder, print) as lease:
        keep_recipe(recipe)
        train_here(recipe)
        steps = recipe.train.steps or 0
        book = Book(folder, lease.generation, began)
        book.note(replace(TRAINING, run=recipe.run.name, step=steps, steps=steps, stop=steps, checkpoint=steps))
        state = open_run(recipe, ensure_index(recipe), print)
        write_summary(recipe, state, began, {}, book.account, told_to_stop=False)
        book.write()
    return recipe


def _copy(folder: Path, what: str, *others: str, source: Path | None = None) -> None:
    for other in others or (what,):
        shutil.copytree(source or folder / what, folder / other)


def _write_list(videos: Path) -> None:
    """Write a list that names every second video."""
    found = sorted(videos.rglob("*.mp4"))[::2]
    lines = [f"{path.relative_to(videos)},{path.parent.name}" for path in found]
    (videos / "val.csv").write_text("\n".join(lines) + "\n")


def _write_weights(folder: Path, pretrained: Recipe, tuned: Recipe) -> None:
    """Write weights in the forms that pages name: ours, of others, and pickles."""
    for recipe, name in ((pretrained, "vitb"), (tuned, "tuned")):
        _ran(export.main, "--run", run_uri(recipe), "--format", "tubelet", "--out", f"{folder}/exported-{name}")
        shutil.move(folder / f"exported-{name}/model.safetensors", folder / f"{name}.safetensors")
    hub = f"{folder}/videomae-base-finetuned-ssv2"
    _ran(export.main, "--run", run_uri(tuned), "--format", "hf-classification", "--out", hub)
    (folder / "tuned.yaml").write_text(dump_recipe(tuned))
    torch.save({"model": read_weights(f"{folder}/vitb.safetensors").tensors}, folder / "checkpoint.pth")
    torch.save(optical_flow.raft_small(weights=None).state_dict(), folder / "bucket/raft_small_C_T_V1-ad48884c.pth")
    vqgan = TokenizerConfig(kind="vqgan", num_codes=40, factor=16, width=32, latent_width=32, code_width=24)
    torch.save({"state_dict": Tokenizer(vqgan).state_dict()}, folder / "last.ckpt")
