"""The picture of a confusion matrix."""

from __future__ import annotations

import cv2
import numpy as np

from system.report.confusion_picture import CELL_PX, MARGIN_PX, confusion_picture


def drawn(counts: np.ndarray, names: list[str]) -> np.ndarray:
    picture = cv2.imdecode(np.frombuffer(confusion_picture(counts, names), np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def test_a_cell_is_the_darker_the_larger_its_share_of_the_row_and_names_stand_beside() -> None:
    picture = drawn(np.array([[4, 0, 0], [1, 1, 0]]), ["left", "right"])
    cells = picture[-MARGIN_PX - 2 * CELL_PX : -MARGIN_PX, -MARGIN_PX - 2 * CELL_PX : -MARGIN_PX]

    def corner(row: int, column: int) -> int:  # of a cell, where no number stands
        return int(cells[row * CELL_PX + 3, column * CELL_PX + 3].sum())

    assert corner(0, 0) < corner(1, 0) == corner(1, 1) < corner(0, 1) == 3 * 255
    left = picture[-MARGIN_PX - 2 * CELL_PX : -MARGIN_PX, MARGIN_PX : -MARGIN_PX - 2 * CELL_PX]
    assert left.min() < 100


def test_a_columns_name_stands_above_it_and_a_rows_name_beside_it() -> None:
    names = ["a", "much longer"]
    picture = drawn(np.array([[4, 0, 0], [1, 1, 0]]), names)[MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX]
    above, beside = picture[: -2 * CELL_PX, -2 * CELL_PX :], picture[-2 * CELL_PX :, : -2 * CELL_PX]
    ink = [
        int((part < 200).sum()) for part in (above[:, :CELL_PX], above[:, CELL_PX:], beside[:CELL_PX], beside[CELL_PX:])
    ]
    assert 0 < ink[0] < ink[1]
    assert 0 < ink[2] < ink[3]
    assert (above[-20:, :CELL_PX] < 200).any()  # a short name stands next to its column


def test_videos_that_were_not_read_have_a_column_where_there_are_any() -> None:
    without, with_one = (drawn(np.array([[4, 0, lost], [1, 1, 0]]), ["a", "b"]) for lost in (0, 1))
    assert with_one.shape[1] == without.shape[1] + CELL_PX


def test_many_classes_are_drawn_without_names() -> None:
    counts = np.concatenate([np.eye(41, dtype=np.int64), np.zeros((41, 1), np.int64)], 1)
    picture = drawn(counts, [f"class {number}" for number in range(41)])
    side = 400 // 41
    assert picture.shape == (41 * side + 2 * MARGIN_PX,) * 2 + (3,)
