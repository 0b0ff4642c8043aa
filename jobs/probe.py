"""What a frozen encoder knows of labels: `python -m jobs.probe --run NAME --train FOLDER --test FOLDER --out FOLDER`.

Linear probe, attentive probe and nearest neighbours on the features that `jobs.embed` would give; docs/embeddings.md.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jobs.cli import count, parser, run, say
from jobs.features import (
    Counter,
    Site,
    add_encoder,
    add_work,
    check_failed,
    chosen_encoder,
    told_errors,
    views_from,
)
from system import storage
from system.core.views import SAMPLINGS, Views
from system.data.dataset import readable_index
from system.data.labels import class_numbers
from system.errors import RecipeError
from system.evaluate.labelled_sets import LabelledSet, check_sets, labelled_set
from system.recipe import Recipe

if TYPE_CHECKING:
    from system.evaluate.probe_sets import Probe

PROBES: tuple[Probe, ...] = ("linear", "attentive", "knn")
RESULT = "probe.json"


def main(arguments: Sequence[str]) -> int:
    """Run the job."""
    options = parser("probe", "Score a frozen encoder's features by a linear probe, an attentive probe and kNN.")
    add_encoder(options)
    for name in ("train", "test"):
        options.add_argument(f"--{name}", required=True, help=f"{name} videos: an index.parquet, a folder or a prefix")
        options.add_argument(f"--{name}-labels", help="`index` (default), `folder`, or a list of `path label`")
    options.add_argument("--only-listed", action="store_true", help="leave out videos that a list does not name")
    options.add_argument("--out", required=True, help="folder or s3:// prefix for features and probe.json")
    options.add_argument("--probes", default="linear,knn", help=f"of {', '.join(PROBES)}; default linear,knn")
    options.add_argument("--train-views", default="1x1", help="CLIPSxCROPS, each an example; default 1x1")
    options.add_argument("--test-views", default="1x1", help="CLIPSxCROPS, whose softmaxes are averaged; default 1x1")
    options.add_argument("--sampling", choices=SAMPLINGS, default="dense", help="how clips are taken; default dense")
    options.add_argument("--pool", choices=("mean", "slots"), default="mean", help="slots: one mean a slot of time")
    options.add_argument("--tokens-side", type=count, help="attentive: average a slot's tokens to SIDE x SIDE")
    options.add_argument("--tokens-gb", type=float, default=8.0, help="attentive: most memory for tokens; default 8")
    options.add_argument("--seed", type=int, default=0, help="of the held-out part and the order of examples")
    add_work(options)
    given = options.parse_intermixed_args(arguments)
    given.probes = _probes(given.probes)
    result = probe(given)
    place = storage.join(storage.absolute(given.out), RESULT)
    storage.write(place, json.dumps(result, indent=1).encode())
    for line in result_lines(result):
        say(line)
    say(place)
    return 0


def probe(given: Any) -> dict[str, Any]:
    """Compute the features, fit the probes, and return the result as plain values."""
    views = [views_from(text, given.sampling) for text in (given.train_views, given.test_views)]
    source = chosen_encoder(given)
    recipe, weights = source.recipe, source.weights
    out = storage.absolute(given.out)
    storage.check_writable(storage.join(out, RESULT))
    train, test = (
        _labelled_set(name, uri, labels, own, given, recipe)
        for name, uri, labels, own in (
            ("train", given.train, given.train_labels, views[0]),
            ("test", given.test, given.test_labels, views[1]),
        )
    )
    side = _tokens_side(given, recipe, train, test)

    import torch  # noqa: PLC0415  a second, when the arguments are right

    from system.evaluate.encoders import encoder_digest, load_encoder  # noqa: PLC0415
    from system.evaluate.frozen import Extraction  # noqa: PLC0415
    from system.evaluate.probe_sets import fit_probes, set_features  # noqa: PLC0415
    from system.evaluate.provenance import commit  # noqa: PLC0415

    classes = check_sets(train, test)
    class_numbers(test.found.lost, classes, test.where, train.where)
    digest = encoder_digest(load_encoder(recipe, weights))
    sets, told = [], {}
    with told_errors():
        site = Site(given, recipe)
        work = Extraction(recipe, weights, views[0], given.pool, side, site.precision, given.batch)
        for each in (train, test):
            progress = Counter(f"{each.name} features")
            found, manifest = set_features(each, classes, work, digest, out, site.rows(), progress)
            check_failed(manifest, recipe.data.max_bad_ratio)
            sets.append(found)
            told[each.name] = _counts(each, manifest)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return {
        "probes": fit_probes(given.probes, sets[0], sets[1], len(classes), work, seed=given.seed, device=device),
        "classes": list(classes),
        "sets": told,
        "weights": weights,
        "weights_sha256": digest,
        "features": work.meaning()[0],
        "precision": site.precision,
        "tokens_side": side,
        "seed": given.seed,
        "commit": commit(),
        "recipe": recipe.model_dump(mode="json"),
    }


def _probes(text: str) -> list[str]:
    """Return the probes that are wanted.

    Raises:
        RecipeError: if there is no such probe.
    """
    names = text.split(",")
    unknown = [name for name in names if name not in PROBES]
    if unknown:
        raise RecipeError(f"--probes: there is no probe {unknown[0]!r}; there are {', '.join(PROBES)}")
    return names


def _labelled_set(name: str, uri: str, labels: str | None, views: Views, given: Any, recipe: Recipe) -> LabelledSet:
    own = storage.join(storage.absolute(given.out), f"{name}.index.parquet")
    index = readable_index(recipe, uri, own, say)
    return labelled_set(name, index, labels, views, only_listed=given.only_listed)


def _tokens_side(given: Any, recipe: Recipe, train: LabelledSet, test: LabelledSet) -> int | None:
    """Return to how many rows and columns tokens are averaged; None where no probe wants them.

    Raises:
        RecipeError: if they cannot be, or take more memory than they may.
    """
    from system.models.sizes import shapes  # noqa: PLC0415

    if "attentive" not in given.probes:
        return None
    grid, width = recipe.grid, shapes(recipe.model)[0].width
    sides = [side for side in range(1, grid.rows + 1) if not grid.rows % side]
    side: int = given.tokens_side or grid.rows
    if side not in sides:
        raise RecipeError(f"--tokens-side divides the {grid.rows} rows of tokens: {sides}, got {side}")

    def gigabytes(rows: int) -> float:
        views = sum(len(each.found.ids) * each.views.count for each in (train, test))
        return views * grid.slots * rows**2 * width * 2 / 1e9

    if gigabytes(side) > given.tokens_gb:
        fits = [each for each in sides if gigabytes(each) <= given.tokens_gb]
        advice = f"use --tokens-side {fits[-1]}" if fits else "use fewer videos or views"
        raise RecipeError(
            f"tokens of {side} x {side} places take {gigabytes(side):.1f} GB, more than"
            f" --tokens-gb={given.tokens_gb:g}; {advice}, or raise it"
        )
    return side


def _counts(each: LabelledSet, manifest: dict[str, Any]) -> dict[str, Any]:
    names = ("videos", "failed", "partly_read", "reasons", "index", "rejected_by_the_index")
    told = {name: manifest[name] for name in names}
    return {
        **told,
        "labels": each.where,
        "views": str(each.views),
        "left_out": each.found.left_out,
        "rejected": len(each.found.lost),
    }


def result_lines(result: dict[str, Any]) -> list[str]:
    """Say what a probe found."""
    sets = result["sets"]
    train, test = sets["train"]["videos"], sets["test"]["videos"]
    lines = [f"{train} training and {test} test videos of {len(result['classes'])} classes"]
    for name, each in sets.items():
        if each["failed"]:
            what = "left out" if name == "train" else "counted as wrong"
            lines.append(f"{each['failed']} {name} videos could not be read and are {what}: {each['reasons']}")
        if each["rejected_by_the_index"]:
            wrong = f"; {each['rejected']} of them have a label here and are counted as wrong" if name == "test" else ""
            lines.append(f"{each['rejected_by_the_index']} {name} files are not in the index, as unreadable{wrong}")
    for name, found in result["probes"].items():
        if name == "knn":
            lines += [f"knn, k={count:3s}  {_line(scores)}" for count, scores in found.items()]
        else:
            lines.append(f"{name:10s} {_line(found)}   learning rate {found['rate']:g} of {len(found['held_out'])}")
    return lines


def _line(scores: dict[str, Any]) -> str:
    return f"top-1 {scores['top1']:.1%}  top-5 {scores['top5']:.1%}  mean of classes {scores['per_class']:.1%}"


if __name__ == "__main__":
    run(main)
