"""What a frozen encoder knows of labels: `python -m jobs.probe --run NAME --train FOLDER --test FOLDER --out FOLDER`.

Linear probe, attentive probe and nearest neighbours on the features that `jobs.embed` would give; docs/embeddings.md.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from jobs.cli import parser, run, say
from jobs.features import (
    Counter,
    Site,
    add_encoder,
    add_work,
    check_failed,
    check_work,
    chosen_encoder,
    open_videos,
    told_errors,
    views_from,
)
from system import storage
from system.core.views import SAMPLINGS, Views
from system.data.index import Index
from system.data.labels import FOLDERS, IN_INDEX, Labelled, class_names, class_numbers, examples, labelled
from system.errors import DataError, RecipeError
from system.recipe import Recipe

if TYPE_CHECKING:
    from system.evaluate.probes import LabelledViews, Swept

PROBES = ("linear", "attentive", "knn")
RESULT = "probe.json"


@dataclass(frozen=True, slots=True)
class LabelledSet:
    """One of the two sets.

    Attributes:
        name: `train` or `test`.
        index: of its videos.
        found: those with labels.
        where: the labels come from, for messages.
        views: that are looked at.
    """

    name: str
    index: Index
    found: Labelled
    where: str
    views: Views


def main(arguments: Sequence[str]) -> int:
    """Run the job."""
    options = parser("probe", "Score a frozen encoder's features by a linear probe, an attentive probe and kNN.")
    add_encoder(options)
    for name in ("train", "test"):
        options.add_argument(f"--{name}", required=True, help=f"{name} videos: an index.parquet, a folder or a prefix")
        options.add_argument(f"--{name}-labels", help="`index` (default), `folder`, or a list of `path label`")
    options.add_argument("--only-listed", action="store_true", help="leave out videos that a list does not name")
    options.add_argument("--out", required=True, help="folder or s3:// prefix for features and probe.json")
    options.add_argument("--probes", nargs="+", choices=PROBES, default=["linear", "knn"], help="default linear knn")
    options.add_argument("--train-views", default="1x1", help="CLIPSxCROPS, each an example; default 1x1")
    options.add_argument("--test-views", default="1x1", help="CLIPSxCROPS, whose softmaxes are averaged; default 1x1")
    options.add_argument("--sampling", choices=SAMPLINGS, default="dense", help="how clips are taken; default dense")
    options.add_argument("--pool", choices=("mean", "slots"), default="mean", help="slots: one mean a slot of time")
    options.add_argument("--tokens-side", type=int, help="attentive: average a slot's tokens to SIDE x SIDE")
    options.add_argument("--tokens-gb", type=float, default=8.0, help="attentive: most memory for tokens; default 8")
    options.add_argument("--seed", type=int, default=0, help="of the held-out part and the order of examples")
    add_work(options)
    given = options.parse_intermixed_args(arguments)
    check_work(given)
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
    recipe, weights = chosen_encoder(given)
    out = storage.absolute(given.out)
    storage.check_writable(storage.join(out, RESULT))
    train, test = (
        _labelled_set(name, uri, labels, own, given, out)
        for name, uri, labels, own in (
            ("train", given.train, given.train_labels, views[0]),
            ("test", given.test, given.test_labels, views[1]),
        )
    )
    classes = check_sets(train, test)
    side = _tokens_side(given, recipe, train, test)

    from system.evaluate.frozen import encoder_digest, load_encoder  # noqa: PLC0415  torch
    from system.evaluate.provenance import commit  # noqa: PLC0415

    known = encoder_digest(load_encoder(recipe, weights))
    with told_errors():
        site = Site(given, recipe)
        sets, counts = [], {}
        for each in (train, test):
            found, manifest = _features(each, classes, train.where, (recipe, weights, known), given, site, side, out)
            check_failed(manifest, recipe.data.max_bad_ratio)
            sets.append(found)
            counts[each.name] = _counts(each, manifest)
    scores = _fit(given.probes, sets[0], sets[1], recipe, len(classes), given.seed, site.kind if given.local else "cpu")
    return {
        "probes": scores,
        "classes": list(classes),
        "sets": counts,
        "weights": weights,
        "weights_sha256": known,
        "features": manifest["features"],
        "precision": site.precision,
        "seed": given.seed,
        "commit": commit(),
        "recipe": recipe.model_dump(mode="json"),
    }


def _labelled_set(name: str, uri: str, labels: str | None, views: Views, given: Any, out: str) -> LabelledSet:
    index = open_videos(uri, out, f"{name}.index.parquet")
    source = labels or IN_INDEX
    source = source if source in (IN_INDEX, FOLDERS) else storage.absolute(source)
    where = index.uri if source in (IN_INDEX, FOLDERS) else source
    return LabelledSet(name, index, labelled(index, source, only_listed=given.only_listed), where, views)


def check_sets(train: LabelledSet, test: LabelledSet) -> tuple[str, ...]:
    """Refuse sets that do not fit each other; return the classes.

    Raises:
        DataError: if a video is in both, test labels are unknown to the training set, or there is one class only.
    """
    both = _shared(train, test)
    if both:
        raise DataError(f"{len(both)} videos are in both sets: {examples(both)}; give each set its own videos or list")
    classes = class_names(train.found.labels)
    if len(classes) < 2:
        raise DataError(
            f"{train.where}: a probe tells classes apart, and all {len(train.found.labels)} are {classes[0]}"
        )
    class_numbers(test.found.labels, classes, test.where, train.where)
    return classes


def _shared(train: LabelledSet, test: LabelledSet) -> list[str]:
    """Return the names of the videos that are in both sets: the same bytes of the same object."""

    def places(each: LabelledSet) -> list[tuple[str, int]]:
        found = each.index.places(each.found.ids)
        return list(zip(found.uris.tolist(), found.starts.tolist(), strict=True))

    known = set(places(train))
    again = [int(video) for video, place in zip(test.found.ids, places(test), strict=True) if place in known]
    return list(test.index.names(again).values())


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
            f"tokens of {side} x {side} places take {gigabytes(side):.1f} GB, more than --tokens-gb={given.tokens_gb:g};"
            f" {advice}, or raise it"
        )
    return side


def _features(
    each: LabelledSet,
    classes: Sequence[str],
    known: str,
    encoder: tuple[Recipe, str, str],
    given: Any,
    site: Site,
    side: int | None,
    out: str,
) -> tuple[LabelledViews, dict[str, Any]]:
    """Compute a set's features, or what is missing of them; return them and their manifest."""
    from system.evaluate.extract import Order, extract  # noqa: PLC0415
    from system.evaluate.feature_parts import plan_parts, read_views  # noqa: PLC0415
    from system.evaluate.frozen import Extraction  # noqa: PLC0415
    from system.evaluate.probes import LabelledViews  # noqa: PLC0415

    recipe, weights, digest = encoder
    work = Extraction(recipe, weights, each.views, given.pool, side, site.precision, given.batch, keep_views=True)
    folder = storage.join(out, each.name)
    order = Order(work, each.index, each.found.ids, each.found.labels, folder, digest)
    manifest = extract(order, site.rows(), Counter(f"{each.name} features"))
    kept = read_views(folder, plan_parts(each.found.ids, work), work)
    numbers = class_numbers(each.found.labels, classes, each.where, known)
    return LabelledViews(kept.features, kept.seen, numbers, kept.tokens), manifest


def _counts(each: LabelledSet, manifest: dict[str, Any]) -> dict[str, Any]:
    told = {name: manifest[name] for name in ("videos", "failed", "partly_read", "reasons", "index")}
    return {
        **told,
        "labels": each.where,
        "views": str(each.views),
        "left_out": each.found.left_out,
        "rejected": each.found.rejected,
    }


def _fit(
    probes: Sequence[str],
    train: LabelledViews,
    test: LabelledViews,
    recipe: Recipe,
    classes: int,
    seed: int,
    device: str,
) -> dict[str, Any]:
    from system.evaluate.attentive import attentive_probe  # noqa: PLC0415
    from system.evaluate.probes import linear_probe, nearest_neighbours  # noqa: PLC0415
    from system.models.sizes import shapes  # noqa: PLC0415

    found: dict[str, Any] = {}
    if "linear" in probes:
        found["linear"] = _told(linear_probe(train, test, classes, seed=seed))
    if "attentive" in probes:
        heads = shapes(recipe.model)[0].heads
        found["attentive"] = _told(attentive_probe(train, test, heads, classes, seed=seed, device=device))
    if "knn" in probes:
        found["knn"] = {str(count): asdict(each) for count, each in nearest_neighbours(train, test, classes).items()}
    return found


def _told(swept: Swept) -> dict[str, Any]:
    rows = zip(swept.rates, swept.held_out, strict=True)
    return {
        **asdict(swept.scores),
        "rate": swept.chosen,
        "held_out": [{"rate": rate, "top1": top1, "loss": loss} for rate, (top1, loss) in rows],
    }


def result_lines(result: dict[str, Any]) -> list[str]:
    """Say what a probe found."""
    sets = result["sets"]
    lines = [
        f"{sets['train']['videos']} training and {sets['test']['videos']} test videos of {len(result['classes'])} classes"
    ]
    for name, each in sets.items():
        if each["failed"]:
            what = "left out" if name == "train" else "counted as wrong"
            lines.append(f"{each['failed']} {name} videos could not be read and are {what}: {each['reasons']}")
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
