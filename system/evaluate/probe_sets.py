"""Two labelled sets (labelled_sets.py) and a frozen encoder, from videos to scores.

`set_features` computes what is missing of a set's features; `fit_probes` fits the probes that are wanted. jobs/probe.py
puts them together, and prober.py while a run goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any, Literal

from system import storage
from system.data.labels import class_numbers
from system.evaluate.attentive import attentive_probe
from system.evaluate.extract import Order, Progress, Rows, extract
from system.evaluate.feature_parts import plan_parts, read_views
from system.evaluate.frozen import Extraction
from system.evaluate.labelled_sets import LabelledSet
from system.evaluate.probes import LabelledViews, Swept, linear_probe, nearest_neighbours
from system.models.sizes import shapes

Probe = Literal["linear", "attentive", "knn"]


def set_features(
    each: LabelledSet, classes: Sequence[str], work: Extraction, digest: str, out: str, rows: Rows, progress: Progress
) -> tuple[LabelledViews, dict[str, Any]]:
    """Compute a set's features, or what is missing of them.

    Args:
        each: the set.
        classes: of both sets.
        work: what is computed of each video; its views are the set's.
        digest: of the encoder's weights.
        out: folder of both sets.
        rows: does the work.
        progress: is told of it.

    Returns:
        The features with their labels, and the manifest of their folder, `out/NAME`.
    """
    work = replace(work, views=each.views, keep_views=True)
    folder = storage.join(out, each.name)
    manifest = extract(Order(work, each.index, each.found.ids, each.found.labels, folder, digest), rows, progress)
    kept = read_views(folder, plan_parts(each.found.ids, work), work)
    numbers = class_numbers(each.found.labels, classes, each.where, "the training videos")
    # Labels of lost training videos, which nobody scores, may be none of the classes.
    lost = [label for label in each.found.lost if label in classes]
    lost_numbers = class_numbers(lost, classes, each.where, "the training videos")
    return LabelledViews(kept.features, kept.seen, numbers, kept.tokens, lost_numbers), manifest


def fit_probes(
    probes: Sequence[Probe],
    train: LabelledViews,
    test: LabelledViews,
    classes: int,
    work: Extraction,
    *,
    seed: int = 0,
    device: str = "cpu",
) -> dict[str, Any]:
    """Fit probes to one set and score the other; plain values by the probes' names.

    Args:
        probes: that are wanted.
        train: features of the training videos.
        test: features of the test videos.
        classes: their number.
        work: what the features are.
        seed: of the held-out part and of the order of examples.
        device: of the attentive probe.
    """
    found: dict[str, Any] = {}
    if "linear" in probes:
        found["linear"] = _told(linear_probe(train, test, classes, seed=seed))
    if "attentive" in probes:
        heads = shapes(work.recipe.model)[0].heads
        found["attentive"] = _told(attentive_probe(train, test, heads, classes, seed=seed, device=device))
    if "knn" in probes:
        found["knn"] = {str(count): asdict(each) for count, each in nearest_neighbours(train, test, classes).items()}
    return found


def _told(swept: Swept) -> dict[str, Any]:
    rows = zip(swept.rates, swept.held_out, strict=True)
    return {
        **asdict(swept.scores),
        "rate": swept.chosen,
        "batch": swept.batch,
        "held_out": [{"rate": rate, "top1": top1, "loss": loss} for rate, (top1, loss) in rows],
    }
