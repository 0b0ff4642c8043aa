from __future__ import annotations

import numpy as np
import pytest

from system.data import supplied
from system.data.supplied import SuppliedFile


class Origin:
    """Bytes, and the ranges of them that were asked for."""

    def __init__(self, size: int) -> None:
        self.data = np.random.default_rng(0).bytes(size)
        self.asked: list[tuple[int, int]] = []

    def fetch(self, start: int, stop: int) -> bytes:
        assert 0 <= start < stop <= len(self.data)
        self.asked.append((start, stop))
        return self.data[start:stop]

    def file(self, *ranges: tuple[int, int]) -> SuppliedFile:
        return SuppliedFile(len(self.data), [(start, self.data[start:stop]) for start, stop in ranges], self.fetch)


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supplied, "PIECE_BYTES", 16)
    monkeypatch.setattr(supplied, "LARGEST_PIECE_BYTES", 128)
    monkeypatch.setattr(supplied, "KEPT_BYTES", 300)


def kept(file: SuppliedFile) -> int:
    return sum(len(data) for _, data in file._segments)


def test_reading_on_asks_for_twice_as_much_each_time(small_pieces: None) -> None:
    origin = Origin(1000)
    file = origin.file()
    while file.read(10):
        pass
    assert [stop - start for start, stop in origin.asked] == [16, 32, 64, 128, 128, 128, 128, 128, 128, 120]
    assert [start for start, _ in origin.asked[1:]] == [stop for _, stop in origin.asked[:-1]]


def test_reading_here_and_there_asks_for_small_pieces(small_pieces: None) -> None:
    origin = Origin(1000)
    file = origin.file()
    for position in (500, 100, 900, 300):
        file.seek(position)
        file.read(4)
    assert origin.asked == [(496, 512), (96, 112), (896, 912), (288, 304)]


def test_a_file_does_not_hold_all_that_was_read_of_it(small_pieces: None) -> None:
    origin = Origin(5000)
    file = origin.file((0, 50), (4000, 4100))
    held = []
    while file.read(10):
        held.append(kept(file))
    assert max(held) <= 150 + 300
    assert {(0, 50), (4000, 4100)} <= {(start, start + len(data)) for start, data in file._segments}


def test_any_way_of_reading_gives_the_bytes(small_pieces: None) -> None:
    origin = Origin(3000)
    file = origin.file((0, 100), (1000, 1500), (1500, 1500), (2900, 3000))
    draw = np.random.default_rng(1)
    for _ in range(500):
        start, amount = int(draw.integers(0, 3000)), int(draw.choice([1, 7, 60, 400, 3000]))
        file.seek(start)
        assert file.read(amount) == origin.data[start : start + amount]
