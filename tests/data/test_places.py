"""Rows and places of an index that is read a row group at a time."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from system.data import places
from system.data.index import GROUP_VIDEOS, Index, IndexWriter

VIDEOS = 3 * GROUP_VIDEOS + 11


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An index of four row groups: 100 videos lie in one object, every third has a label."""
    writer = IndexWriter(str(tmp_path_factory.mktemp("index") / "index.parquet"), "test")
    for number in range(VIDEOS):
        writer.add(
            {
                "uri": f"shard-{number // 100}.tar",
                "name": f"{number}.mp4",
                "byte_start": 1000 * (number % 100),
                "num_bytes": 700 + number,
                "etag": "e",
                "label": None if number % 3 else "third",
                "codec": "h264",
                "width": 320,
                "height": 240,
                "num_frames": 50 + number % 9,
                "fps": 29.97,
                "key_frames": list(range(number % 4)),
                "key_timestamps": [512 * key for key in range(number % 4)],
                "key_positions": [-1] * (number % 4),
                "header": [0, 48],
                "layers": 4,
            }
        )
    writer.close()
    return writer.uri


def test_rows_are_those_of_the_file(uri: str) -> None:
    index, wanted = Index(uri), pq.read_table(uri).to_pylist()
    some = [0, GROUP_VIDEOS - 1, GROUP_VIDEOS, 3 * GROUP_VIDEOS, VIDEOS - 1]
    assert [asdict(index.row(video)) for video in some] == [wanted[video] for video in some]
    assert [asdict(row) for row in index] == wanted


@pytest.mark.parametrize("kept", [24, 2, 1])
def test_places_are_those_of_the_rows_whatever_is_kept(uri: str, kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "KEPT", kept)
    index, table = Index(uri), pq.read_table(uri)
    for seed in range(3):
        videos = np.random.default_rng(seed).integers(0, VIDEOS, 200)
        found, wanted = index.places(videos), table.take(videos)
        assert found.uris.tolist() == wanted["uri"].to_pylist()
        assert found.starts.tolist() == wanted["byte_start"].to_pylist()
        assert found.sizes.tolist() == wanted["num_bytes"].to_pylist()


def test_an_index_without_a_directory_is_read_all_the_same(uri: str, tmp_path: Path) -> None:
    old = str(tmp_path / "old.parquet")
    table = pq.read_table(uri).drop_columns(["layers"])
    table = table.replace_schema_metadata({"tubelet": pq.read_metadata(uri).metadata[b"tubelet"]})
    pq.write_table(table, old, row_group_size=GROUP_VIDEOS)
    index, new = Index(old), Index(uri)
    assert asdict(index.row(5)) == {**asdict(new.row(5)), "layers": 0}
    assert index.places(np.array([5, VIDEOS - 1])).sizes.tolist() == [705, 700 + VIDEOS - 1]
    assert index.names([5, 2049]) == new.names([5, 2049]) == {5: "5.mp4", 2049: "2049.mp4"}
    assert not index.numbers("layers").any()
    assert (new.numbers("layers") == 4).all()
