"""Features of every video of an index, as Parquet: `python -m jobs.embed --run NAME --videos FOLDER --out FOLDER`.

docs/embeddings.md says what the columns are. The same command again makes only what is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jobs.cli import parser, run, say
from jobs.features import (
    Counter,
    Site,
    add_encoder,
    add_work,
    chosen_encoder,
    told_errors,
    unread_lines,
    views_from,
)
from system import storage
from system.core.views import SAMPLINGS
from system.data.dataset import videos_index
from system.data.index import Index
from system.data.labels import IN_INDEX, known_labels, labelled, labels_uri


def main(arguments: Sequence[str]) -> int:
    """Run the job."""
    options = parser("embed", "Write features of every video of an index, for retrieval and clustering.")
    add_encoder(options)
    options.add_argument("--videos", required=True, help="an index.parquet, or a folder or s3:// prefix of videos")
    options.add_argument("--out", required=True, help="folder or s3:// prefix to write to")
    options.add_argument("--views", default="1x1", help="CLIPSxCROPS of each video, averaged; default 1x1, the middle")
    options.add_argument("--sampling", choices=SAMPLINGS, default="dense", help="how clips are taken; default dense")
    options.add_argument("--pool", choices=("mean", "slots"), default="mean", help="slots: one mean a slot of time")
    options.add_argument("--labels", help="a list of `path label`, or `folder`; default what the index says")
    options.add_argument("--only-listed", action="store_true", help="leave out videos that the list does not name")
    add_work(options)
    given = options.parse_intermixed_args(arguments)
    manifest = embed(given)
    for line in closing(manifest, storage.absolute(given.out)):
        say(line)
    return 0


def embed(given: Any) -> dict[str, Any]:
    """Fill the folder and return its manifest."""
    views = views_from(given.views, given.sampling)
    source = chosen_encoder(given)
    recipe, weights = source.recipe, source.weights
    out = storage.absolute(given.out)
    index = videos_index(given.videos, storage.join(out, "index.parquet"), say)
    ids, labels = _wanted(index, given)
    storage.check_writable(storage.join(out, "manifest.json"))

    from system.evaluate.encoders import encoder_digest, load_encoder  # noqa: PLC0415  torch
    from system.evaluate.extract import Order, extract  # noqa: PLC0415
    from system.evaluate.frozen import Extraction  # noqa: PLC0415

    known = encoder_digest(load_encoder(recipe, weights))  # so that weights that do not fit are told first
    with told_errors():
        site = Site(given, recipe)
        work = Extraction(recipe, weights, views, given.pool, precision=site.precision, batch=given.batch)
        order = Order(work, index, ids, labels, out, known)
        return extract(order, site.rows(), Counter("embedding"))


def _wanted(index: Index, given: Any) -> tuple[Any, Sequence[str | None]]:
    """Return numbers and labels of the videos; of the index's own labels some may be missing."""
    if given.labels in (None, IN_INDEX):
        return np.arange(index.num_videos), known_labels(index)
    found = labelled(index, labels_uri(given.labels), only_listed=given.only_listed)
    return found.ids, found.labels


def closing(manifest: dict[str, Any], out: str) -> list[str]:
    """Say what lies in a folder of features."""
    lines = [
        f"{manifest['videos']} videos, {manifest['identity']['views']} views each: {manifest['width']} numbers a video,"
        f" {storage.join(out, 'parts')}"
    ]
    return lines + unread_lines(manifest, "")


if __name__ == "__main__":
    run(main)
