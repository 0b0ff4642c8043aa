"""Multi-view testing of a classifier: `python -m jobs.evaluate --run RUN --data VIDEOS --out FOLDER`.

docs/evaluation.md says what is written. The same command again computes only what is missing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jobs.cli import count, parser, run, say
from jobs.features import (
    Counter,
    Site,
    add_encoder,
    add_work,
    chosen_encoder,
    told_errors,
    unread_lines,
)
from system import storage
from system.core.views import SAMPLINGS, Views
from system.data.dataset import videos_index
from system.data.labels import class_numbers, examples
from system.evaluate.labelled_sets import LabelledSet, labelled_set

if TYPE_CHECKING:
    from system.evaluate.encoders import Source
    from system.evaluate.extract import Order
    from system.evaluate.multiview import Answers

RESULTS, CONFUSION, PREDICTIONS = "results.json", "confusion.json", "predictions.parquet"
PICTURE = "confusion.png"


@dataclass(frozen=True, slots=True)
class Task:
    """What is tested on what.

    Attributes:
        source: of the classifier's weights.
        classes: of the classifier, by number.
        videos: with their labels and views.
    """

    source: Source
    classes: tuple[str, ...]
    videos: LabelledSet


def main(arguments: Sequence[str]) -> int:
    """Run the job."""
    options = parser("evaluate", "Test a classifier on videos with labels: several views of each, merged.")
    add_encoder(options, "classifier")
    options.add_argument("--classes", help="JSON list of the names of its classes, for weights that say none")
    options.add_argument("--data", required=True, help="an index.parquet, or a folder or s3:// prefix of videos")
    options.add_argument("--labels", help="`index` (default), `folder`, or a list of `path label`")
    options.add_argument("--only-listed", action="store_true", help="leave out videos that the list does not name")
    options.add_argument("--sampling", choices=SAMPLINGS, help="how clips are taken; default method.sampling")
    options.add_argument("--clips", type=count, help="of each video; default 5 of dense, 2 of segments")
    options.add_argument("--crops", type=count, help="of each clip; default 3")
    options.add_argument("--out", required=True, help="folder or s3:// prefix for logits and results.json")
    add_work(options)
    given = options.parse_intermixed_args(arguments)
    out = storage.absolute(given.out)
    for line in result_lines(evaluate(given, out)):
        say(line)
    say(storage.join(out, RESULTS))
    return 0


def evaluate(given: Any, out: str) -> dict[str, Any]:
    """Compute the logits that are missing, count the answers, and write and return the results."""
    test = _test(given, out)
    storage.check_writable(storage.join(out, RESULTS))

    from system.evaluate.classifiers import load_classifier  # noqa: PLC0415  torch
    from system.evaluate.extract import Order, extract  # noqa: PLC0415
    from system.evaluate.feature_parts import plan_parts  # noqa: PLC0415
    from system.evaluate.frozen import Extraction  # noqa: PLC0415
    from system.evaluate.multiview import counted  # noqa: PLC0415
    from system.evaluate.provenance import digest  # noqa: PLC0415

    recipe, weights = test.source.recipe, test.source.weights
    known = digest(load_classifier(recipe, weights, len(test.classes)).state_dict())
    with told_errors():
        site = Site(given, recipe)
        work = Extraction(
            recipe,
            weights,
            test.videos.views,
            precision=site.precision,
            batch=given.batch,
            keep_views=True,
            classes=test.classes,
        )
        order = Order(work, test.videos.index, test.videos.found.ids, test.videos.found.labels, out, known)
        manifest = extract(order, site.rows(), Counter("testing"))
    lost = class_numbers(test.videos.found.lost, test.classes, test.videos.where, weights)
    found = counted(out, plan_parts(order.ids, work), work, lost)
    return _write(test, order, manifest, found)


def _test(given: Any, out: str) -> Task:
    """Return what is tested, when all of it fits.

    Raises:
        DataError: if a video has no label, or one that is none of the classifier's classes.
        WeightsError: if the weights are no classifier.
    """
    source = chosen_encoder(given)
    from system.evaluate.classifiers import class_list, classes_of  # noqa: PLC0415  torch

    classes = classes_of(source, class_list(storage.absolute(given.classes)) if given.classes else None)
    index = videos_index(given.data, storage.join(out, "index.parquet"), say)
    views = _views(given, source)
    videos = labelled_set("test", index, given.labels, views, only_listed=given.only_listed)
    class_numbers((*videos.found.labels, *videos.found.lost), classes, videos.where, source.weights)
    absent = [name for name in classes if name not in set(videos.found.labels)]
    if absent:
        say(f"{len(absent)} of the {len(classes)} classes of the model have no video here: {examples(absent)}")
    return Task(source, classes, videos)


def _views(given: Any, source: Source) -> Views:
    from system.evaluate.multiview import default_views  # noqa: PLC0415

    usual = default_views(given.sampling or getattr(source.recipe.method, "sampling", "dense"))
    return Views(usual.sampling, given.clips or usual.clips, given.crops or usual.crops)


def _write(test: Task, order: Order, manifest: dict[str, Any], found: Answers) -> dict[str, Any]:
    """Write results, confusion and predictions; return the results."""
    from system.evaluate.multiview import confusion_values, score_values  # noqa: PLC0415
    from system.evaluate.part_tables import parquet  # noqa: PLC0415
    from system.evaluate.provenance import commit  # noqa: PLC0415
    from system.report.confusion_picture import confusion_picture  # noqa: PLC0415

    work, out, views = order.work, order.out, test.videos.views
    unread = {"failed": manifest["failed"], "partly_read": manifest["partly_read"]}
    results = {
        "job": "evaluate",
        **score_values(found, work),
        "videos": manifest["videos"],
        "whole": manifest["videos"] - sum(unread.values()),
        **unread,
        "a_failed_video": "is wrong; of one that was read in part the views count that were read",
        "reasons": manifest["reasons"],
        "not_whole": manifest["examples"],
        "classes": len(work.classes),
        "views": {"sampling": views.sampling, "clips": views.clips, "crops": views.crops, "merged": work.meaning()[1]},
        "precision": work.precision,
        "weights": {"uri": work.weights, "sha256": order.weights, "step": test.source.said.get("step")},
        "run": test.source.said.get("run"),
        "data": {
            "index": order.index.uri,
            "fingerprint": order.index.fingerprint,
            "labels": test.videos.where,
            "left_out": test.videos.found.left_out,
            "rejected_by_the_index": manifest["rejected_by_the_index"],
            "rejected_and_wrong": len(test.videos.found.lost),
        },
        "commit": commit(),
        "recipe": work.recipe.model_dump(mode="json"),
    }
    storage.write(storage.join(out, PREDICTIONS), parquet(found.predictions))
    storage.write(storage.join(out, CONFUSION), json.dumps(confusion_values(found, work)).encode())
    storage.write(storage.join(out, PICTURE), confusion_picture(found.together.confusion, work.classes))
    storage.write(storage.join(out, RESULTS), json.dumps(results, indent=1).encode())
    return results


def result_lines(results: dict[str, Any]) -> list[str]:
    """Say what an evaluation found."""
    views, alone = results["views"], results["single_view"]["mean"]
    each = f"{views['sampling']} {views['clips']}x{views['crops']}"
    lost = results["data"]["rejected_and_wrong"]
    told = {
        **{name: results[name] for name in ("failed", "partly_read", "reasons")},
        "examples": results["not_whole"],
        "rejected_by_the_index": results["data"]["rejected_by_the_index"],
    }
    return [
        f"{results['videos']} videos of {len(results['per_class'])} classes, {each} views each",
        *unread_lines(told, " and are counted as wrong,"),
        *([f"{lost} of the rejected files have a label here and are counted as wrong"] if lost else []),
        f"one view   {_line(alone)}",
        f"merged     {_line(results)}",
    ]


def _line(scores: dict[str, Any]) -> str:
    return f"top-1 {scores['top1']:.1%}  top-5 {scores['top5']:.1%}  mean of classes {scores['mean_class']:.1%}"


if __name__ == "__main__":
    run(main)
