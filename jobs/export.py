"""Write the weights of a run: `python -m jobs.export --run NAME --format hf-pretraining --out FOLDER`.

`tubelet` is one safetensors file in our names, for other runs; `hf-pretraining` and `hf-classification` are folders
that Hugging Face's `from_pretrained` opens. Beside them lies a model card. docs/weights.md: the names and the traps.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from jobs.cli import parser, run, say
from system import storage
from system.data.classes import read_classes
from system.errors import WeightsError
from system.models import hugging_face
from system.models.fit import part_of
from system.models.sizes import shapes
from system.models.weight_files import MODEL_FILE, our_metadata, write_weights
from system.models.weights import Tensors
from system.recipe import Recipe
from system.report.model_card import Facts, Format, model_card
from system.train.checkpoint import Checkpoint, chosen
from system.train.folders import run_folder
from system.train.kept_recipe import run_recipe
from system.train.telemetry import read_metrics
from system.train.warm_start import checkpoint_tensors, heads_of

FORMATS: tuple[Format, ...] = ("tubelet", "hf-pretraining", "hf-classification")
# Logged steps whose mean is called the loss.
LAST = 5


def main(arguments: Sequence[str]) -> int:
    """Run the job."""
    options = parser("export", "Write the weights of a run's checkpoint, and a model card.")
    options.add_argument("--run", required=True, help="the run's folder, local or s3://; or its name under --storage")
    options.add_argument("--storage", default="./runs", help="run.storage of a run that is given by its name")
    options.add_argument("--step", type=int, help="of the checkpoint; default the newest")
    options.add_argument("--format", choices=FORMATS, required=True)
    options.add_argument("--out", required=True, help="folder or s3:// prefix to write to")
    options.add_argument("--labels", type=int, help="hf-classification: classes of a pre-trained run's new head")
    options.add_argument(
        "--transformers", type=int, choices=(4, 5), default=5, help="whose names of the biases; 5 reads both"
    )
    given = options.parse_args(arguments)
    out = storage.absolute(given.out)
    if storage.exists(storage.join(out, MODEL_FILE)):
        raise WeightsError(f"{out} holds a {MODEL_FILE} already; name another --out, or delete it")
    folder = run_folder(given.run, given.storage)
    recipe = run_recipe(folder)
    if (given.format == "hf-classification" and not recipe.record.labelled) != (given.labels is not None):
        options.error(
            "--labels N, the number of classes, is for --format hf-classification of a pre-trained run, which needs it;"
            " a fine-tuned one has its own"
        )
    if (given.labels or 1) < 1:
        options.error(f"--labels is 1 or more, got {given.labels}")
    checkpoint, old = chosen(folder, given.step, say), given.transformers == 4
    trained = read_classes(folder) if recipe.record.labelled else None
    classes = trained if given.labels is None else [f"LABEL_{number}" for number in range(given.labels)]
    tensors, metadata, texts, left = _files(recipe, checkpoint, given.format, classes, old_biases=old)
    facts = _facts(folder, recipe, checkpoint, given.format, left, old_biases=old)
    card = model_card(recipe, replace(facts, classes=trained or ()))
    for name, text in {"README.md": card, **texts}.items():
        storage.write(storage.join(out, name), text.encode())
    write_weights(storage.join(out, MODEL_FILE), tensors, metadata)  # last: with it the folder is whole
    if left:
        say(f"left out, {given.format} has no place for them: {', '.join(sorted({part_of(name) for name in left}))}")
    say(f"step {checkpoint.step} of {recipe.run.name} as {given.format}: {out}")
    return 0


def _files(
    recipe: Recipe, checkpoint: Checkpoint, form: Format, classes: Sequence[str] | None, *, old_biases: bool
) -> tuple[Tensors, dict[str, str], dict[str, str], tuple[str, ...]]:
    """Return the tensors to write, their file's metadata, the texts beside it, and the names that are left out."""
    tensors = checkpoint_tensors(checkpoint)
    if form == "tubelet":
        more = {"method": recipe.method.name, "step": str(checkpoint.step)}
        return tensors, our_metadata(heads_of(recipe.model), classes, **more), {}, ()
    model = hugging_face.Model(tensors, recipe.grid, *shapes(recipe.model))
    if form == "hf-classification":
        exported = hugging_face.classification(model, classes or (), old_biases=old_biases)
    else:
        normalize = bool(getattr(recipe.method, "normalize_target", True))
        exported = hugging_face.pretraining(model, normalize_target=normalize, old_biases=old_biases)
    texts = {
        "config.json": json.dumps(dict(exported.config), indent=2),
        "preprocessor_config.json": json.dumps(hugging_face.preprocessor(recipe.grid.height), indent=2),
    }
    return exported.tensors, {"format": "pt"}, texts, exported.left


def _facts(
    folder: str, recipe: Recipe, checkpoint: Checkpoint, form: Format, left: tuple[str, ...], *, old_biases: bool
) -> Facts:
    clips = int(checkpoint.state["progress"]["slots"]) * recipe.data.views
    return Facts(
        format=form,
        step=checkpoint.step,
        clips=clips,
        fingerprint=str(checkpoint.state["fingerprint"]),
        metrics=last_losses(folder, checkpoint.step),
        left=left,
        old_biases=old_biases,
        started_from=_started_from(folder),
    )


def last_losses(folder: str, step: int) -> dict[str, float]:
    """Return the mean losses of the last logged steps before a checkpoint, as far as they are there and finite."""
    try:
        rows = [row for row in read_metrics(folder) if row["step"] < step][-LAST:]
    except storage.MissingError:
        return {}
    found = {}
    for name in [name for name in (rows[-1] if rows else {}) if name.startswith("loss")]:
        values = [row[name] for row in rows if row.get(name) is not None]  # what was not finite is logged as null
        if values:
            which = "" if len(values) == len(rows) else f"{len(values)} finite ones of "
            found[f"{name}, mean of {which}the last {len(rows)} logged steps"] = sum(values) / len(values)
    return found


def _started_from(folder: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(storage.read(storage.join(folder, "warm_start.json")))
    except storage.MissingError:
        return None
    return found


if __name__ == "__main__":
    run(main)
