"""Parquet's metadata, a row group at a time."""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from system.data.footer import add_directory, directory_of
from system.data.groups import MOST, RowGroups
from system.errors import DataError


@pytest.fixture
def table() -> pa.Table:
    """1,003 rows with what an index has: numbers, texts that repeat and texts that do not, none, and lists."""
    numbers = np.random.default_rng(0).integers(0, 2**40, 1003)
    return pa.table(
        {
            "number": numbers,
            "name": [f"video {number}" for number in numbers],
            "label": [None if number % 3 else "a" for number in numbers],
            "share": numbers.astype(np.float32) / 3,
            "keys": [list(range(number % 5)) for number in numbers],
            "yes": [bool(number % 2) for number in numbers],
        }
    ).replace_schema_metadata({"ours": "kept"})


@pytest.fixture
def path(tmp_path: Path, table: pa.Table) -> Path:
    path = tmp_path / "x.parquet"
    pq.write_table(table, path, row_group_size=10, compression="zstd")
    return path


def test_a_file_with_a_directory_is_the_same_file_to_every_other_reader(path: Path, table: pa.Table) -> None:
    before = pq.read_metadata(path)
    add_directory(path)
    assert pq.read_table(path) == table
    assert pq.read_metadata(path) == before


@pytest.mark.parametrize("numbers", [[0], [100], [7, 3, 5], list(range(20, 0, -1)), list(range(MOST))])
def test_row_groups_read_by_the_directory_are_those_of_the_file(path: Path, numbers: list[int]) -> None:
    whole, without = pq.ParquetFile(path), RowGroups(str(path))
    add_directory(path)
    groups = RowGroups(str(path))
    assert groups.num_rows == without.num_rows == 1003
    assert groups.notes[b"ours"] == without.notes[b"ours"] == b"kept"
    for names in (whole.schema_arrow.names, ["label"], ["yes", "number"], ["keys", "share"]):
        wanted = whole.read_row_groups(numbers, names)
        assert groups.read(numbers, names).equals(wanted)
        assert without.read(numbers, names).equals(wanted)


def test_a_column_is_read_of_all_groups(path: Path, table: pa.Table) -> None:
    add_directory(path)
    assert RowGroups(str(path)).column("name").equals(table.column("name"))


def test_of_the_metadata_of_other_groups_nothing_is_read(path: Path) -> None:
    add_directory(path)
    with path.open("rb") as file:
        directory = directory_of(file)
    assert directory is not None
    begin = directory.begin
    read = []

    class Noted(io.FileIO):
        def read(self, amount: int | None = -1) -> bytes:
            read.append((self.tell() - begin, amount))
            return super().read(amount or -1)

    with Noted(path) as noted:
        directory.only(noted, [50])
    described = [(int(start), int(stop - start)) for start, stop in pairwise(directory.places[1:])]
    assert described[50] in read
    assert not set(described[:50] + described[51:]) & set(read)


@pytest.mark.parametrize("damage", [b"", b"PAR1", b"x" * 40, b"\0" * 40 + b"PAR1"])
def test_what_has_no_directory_has_none(damage: bytes) -> None:
    assert directory_of(io.BytesIO(damage)) is None


def test_a_damaged_directory_is_none_and_the_file_is_read_as_any_other(path: Path, table: pa.Table) -> None:
    add_directory(path)
    with path.open("rb") as file:
        directory = directory_of(file)
    assert directory is not None
    data = bytearray(path.read_bytes())
    data[directory.begin - 20] ^= 1
    path.write_bytes(data)
    assert directory_of(io.BytesIO(data)) is None
    assert RowGroups(str(path)).read([3], table.column_names).equals(table.slice(30, 10))


class Objects(pa.ExtensionType):  # type: ignore[misc]  # untyped
    """A type of which a library, as Ray does, makes objects by unpickling what is stored."""

    def __init__(self) -> None:
        super().__init__(pa.large_binary(), "tubelet.tests.objects")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type: Any, serialized: bytes) -> Objects:
        return cls()


@pytest.fixture
def objects() -> Iterator[pa.Array]:
    pa.register_extension_type(Objects())
    yield pa.ExtensionArray.from_storage(Objects(), pa.array([b"a pickle"] * 20, pa.large_binary()))
    pa.unregister_extension_type("tubelet.tests.objects")


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("described", [False, True])
def test_a_column_whose_values_could_run_code_is_refused_before_it_is_read(
    tmp_path: Path, objects: pa.Array, *, wrapped: bool, described: bool
) -> None:
    path = tmp_path / "index.parquet"
    column = pa.ListArray.from_arrays(range(len(objects) + 1), objects) if wrapped else objects
    pq.write_table(pa.table({"number": range(20), "label": column}), path, row_group_size=10)
    if described:
        add_directory(path)
    with pytest.raises(DataError, match="label"):
        RowGroups(str(path))


def test_a_directory_that_describes_another_file_hides_no_such_column(
    tmp_path: Path, objects: pa.Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    harmless, path = tmp_path / "harmless.parquet", tmp_path / "index.parquet"
    pq.write_table(pa.table({"label": ["a"] * 20}), harmless)
    pq.write_table(pa.table({"label": objects}), path)
    add_directory(path)
    with monkeypatch.context() as patch:  # as if what is described and what stands in the file were two things
        patch.setattr(RowGroups, "_described", lambda self, numbers: harmless.read_bytes())
        opened = RowGroups(str(path))
    with pytest.raises(DataError, match="label"):
        opened.column("label")
    with pytest.raises(DataError, match="label"):
        opened.read([0], ["label"])
