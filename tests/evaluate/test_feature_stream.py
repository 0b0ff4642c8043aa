"""Features on a local Ray: the same rows as in a plain process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from system.data.columns import Batch
from system.data.index import Index
from system.errors import ClusterError
from system.evaluate.extract import local_rows
from system.evaluate.feature_stream import Encoders, check_room, feature_rows
from system.evaluate.frozen import Extraction
from tests.evaluate.test_extract import index, work

__all__ = ["index", "work"]

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]


def by_video(batches: list[Batch]) -> dict[int, np.ndarray]:
    ids = np.concatenate([batch["video_id"] for batch in batches]).tolist()
    assert len(ids) == len(set(ids))
    return dict(zip(ids, np.concatenate([batch["features"] for batch in batches]), strict=True))


def test_actors_give_every_video_once_and_what_a_plain_process_gives(work: Extraction, index: Index) -> None:
    ids = np.array([0, 2, 3, 5, 7, 11, 13])
    cut = replace(work, keep_views=True)
    here = by_video(list(local_rows(cut, index.uri, ids)))
    there = by_video(list(feature_rows(cut, index.uri, ids, Encoders(1))))
    assert sorted(there) == ids.tolist()
    for video, features in here.items():
        assert np.allclose(there[video], features, atol=1e-5)


def test_actors_that_a_cluster_has_no_room_for_are_refused(work: Extraction, generated: Path) -> None:
    with pytest.raises(ClusterError, match="102 CPUs and 0 GPUs are wanted at least, the cluster has 8 and 0"):
        check_room(work, Encoders(1, cpus=100))
