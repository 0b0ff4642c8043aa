"""Multi-view testing: from the parts of a classifier's logits to scores, confusion and a row for each video.

Parts are read one after the other, so a set of any size fits. Each video is in them once (`counted` proves it), and is
counted once.

n videos, V views of each, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from system.core.views import Views, merged
from system.data.labels import class_numbers
from system.evaluate.feature_parts import PartPlan, check_once, part_columns
from system.evaluate.frozen import Extraction
from system.evaluate.part_tables import flat
from system.evaluate.tally import Tally, ranked

TIES = "of equal probabilities the class with the lower number stands first"
_NONE: NDArray[np.int64] = np.zeros(0, np.int64)
_COLUMNS = ("video_id", "uri", "name", "label", "views", "error", "seen", "logits")


def default_views(sampling: str) -> Views:
    """Return the published test views: 5 x 3 of a dense sampler, 2 x 3 of segments."""
    return Views("segments", 2, 3) if sampling == "segments" else Views("dense", 5, 3)


@dataclass(frozen=True)
class Answers:
    """What a classifier says of a set.

    Attributes:
        together: of all views of a video.
        alone: of each view by itself; a view that could not be read is wrong.
        predictions: a row for each video.
    """

    together: Tally
    alone: tuple[Tally, ...]
    predictions: pa.Table


def counted(out: str, plan: PartPlan, work: Extraction, lost: NDArray[np.int64] = _NONE) -> Answers:
    """Count the answers of a whole folder.

    Args:
        out: the folder.
        plan: of its parts.
        work: what they hold.
        lost: classes of further videos, of which there is nothing: they are wrong.

    Raises:
        DataError: if a part is not there, the parts do not hold each video once, or a label is none of the classes.
    """
    together = Tally(len(work.classes))
    alone = tuple(Tally(len(work.classes)) for _ in range(work.views.count))
    rows = [_of_part(table, work, together, alone) for table in part_columns(out, plan, _COLUMNS)]
    predictions = pa.concat_tables(rows)
    check_once(out, plan, predictions.column("video_id").to_pylist())
    for tally in (together, *alone):
        tally.take(lost, np.zeros((len(lost), len(work.classes))), np.zeros(len(lost), np.bool_))
    return Answers(together, alone, predictions)


def _of_part(table: pa.Table, work: Extraction, together: Tally, alone: Sequence[Tally]) -> pa.Table:
    views, classes = work.views.count, work.classes
    labels = class_numbers(table.column("label").to_pylist(), classes, "the parts", "the model")
    seen = flat(table, "seen").reshape(-1, views)
    logits = flat(table, "logits").reshape(-1, views, len(classes))
    shares = merged(logits, seen)
    there: NDArray[np.bool_] = np.asarray(seen.any(1) & np.isfinite(shares).all(1))
    together.take(labels, shares, there)
    for view, tally in enumerate(alone):
        # Shares, as of all views: a tally takes a class below 0 for no guess.
        tally.take(labels, merged(logits[:, [view]], seen[:, [view]]), seen[:, view])
    return _predictions(table, shares, there, labels, classes)


def _predictions(
    table: pa.Table,
    shares: NDArray[np.float64],
    there: NDArray[np.bool_],
    labels: NDArray[np.int64],
    classes: Sequence[str],
) -> pa.Table:
    """Return a row for each video: what it is, what it is taken for, and how sure; nulls where there is no answer."""
    order = ranked(shares)
    best = np.take_along_axis(shares, order, 1)
    nothing = ~there
    names = [[classes[number] for number in row] if seen else None for row, seen in zip(order, there, strict=True)]
    plain = {name: table.column(name).combine_chunks() for name in ("video_id", "uri", "name", "label")}
    return pa.table(
        {
            **plain,
            "predicted": pa.array([row[0] if row else None for row in names], pa.string()),
            "correct": pa.array(there & (order[:, 0] == labels)),
            "probability": pa.array(best[:, 0], pa.float64(), mask=nothing),
            "of_label": pa.array(shares[np.arange(len(labels)), labels], pa.float64(), mask=nothing),
            "best": pa.array(names, pa.list_(pa.string())),
            "best_probabilities": pa.array(
                [row.tolist() if seen else None for row, seen in zip(best, there, strict=True)],
                pa.list_(pa.float64()),
            ),
            "views": table.column("views").combine_chunks(),
            "error": table.column("error").combine_chunks(),
        }
    )


def scores(tally: Tally) -> dict[str, float]:
    """Return the shares of a tally as plain values."""
    return {"top1": tally.top1, "top5": tally.top5, "mean_class": tally.mean_class}


def score_values(found: Answers, work: Extraction) -> dict[str, Any]:
    """Return scores as plain values for a results file."""
    views, together = work.views, found.together
    each = [
        {"clip": number // views.crops, "crop": number % views.crops, **scores(tally)}
        for number, tally in enumerate(found.alone)
    ]
    middle = views.clips // 2 * views.crops + views.crops // 2
    mean = {name: float(np.mean([one[name] for one in each])) for name in ("top1", "top5", "mean_class")}
    with_videos = together.of_class > 0
    return {
        **scores(together),
        "single_view": {"mean": mean, "middle": each[middle], "views": each},
        "ties": {"rule": TIES, "videos": together.tied},
        "classes_without_videos": int((~with_videos).sum()),
        "per_class": [
            {
                "class": name,
                "videos": int(together.of_class[number]),
                "top1": float(together.per_class[number]),
                "top5": float(together.hits[number] / together.of_class[number]),
            }
            for number, name in enumerate(work.classes)
            if with_videos[number]
        ],
    }


def confusion_values(found: Answers, work: Extraction) -> dict[str, Any]:
    """Return the confusion matrix as plain values: videos by class, and by the class that they are taken for."""
    matrix = found.together.confusion
    return {
        "classes": list(work.classes),
        "rows": "class of the video",
        "columns": "class that it is taken for",
        "counts": matrix[:, :-1].tolist(),
        "not_read": matrix[:, -1].tolist(),
    }
