"""A picture of a confusion matrix: a row for each class, a column for each class that its videos are taken for.

C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]

# More classes than this are shown without their names.
MOST_NAMED = 40
# Sides of a cell with a name and without one, px; and of the whole matrix at least.
CELL_PX, LEAST_PX = 26, 400
MARGIN_PX = 10
_FONT, _SIZE = cv2.FONT_HERSHEY_SIMPLEX, 0.4
# What is not a single video, what is all videos of a row.
_NONE, _ALL = np.array([255, 255, 255.0]), np.array([8, 48, 107.0])
NOT_READ = "(not read)"


def confusion_picture(counts: NDArray[np.int64], names: Sequence[str]) -> bytes:
    """Draw a confusion matrix.

    Args:
        counts: (C, C + 1), videos by class and by answer; in the last column those of which nothing was read, which is
            shown where there are any.
        names: of the classes.

    Returns:
        A PNG file's bytes.
    """
    shown = counts if counts[:, -1].any() else counts[:, :-1]
    shares = shown / np.maximum(counts.sum(1, keepdims=True), 1)
    named = len(names) <= MOST_NAMED
    side = CELL_PX if named else max(2, LEAST_PX // len(names))
    cells = (_NONE + np.sqrt(shares)[..., None] * (_ALL - _NONE)).astype(np.uint8)
    matrix = cells.repeat(side, 0).repeat(side, 1)
    if named:
        matrix[::side] = matrix[:, ::side] = 225
        _write_counts(matrix, shown, shares, side)
        matrix = _with_names(matrix, names, [*names, NOT_READ][: shown.shape[1]], side)
    picture = np.full((matrix.shape[0] + 2 * MARGIN_PX, matrix.shape[1] + 2 * MARGIN_PX, 3), 255, np.uint8)
    picture[MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX] = matrix
    done, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    assert done
    return data.tobytes()


def _write_counts(matrix: Image, counts: NDArray[np.int64], shares: NDArray[np.float64], side: int) -> None:
    for row, column in np.argwhere(counts):
        text = str(counts[row, column])
        if len(text) > 4:
            continue
        size = 0.38 if len(text) < 4 else 0.3
        (width, height), _ = cv2.getTextSize(text, _FONT, size, 1)
        at = (column * side + (side - width) // 2, row * side + (side + height) // 2)
        shade = 255 if shares[row, column] > 0.3 else 60
        cv2.putText(matrix, text, at, _FONT, size, (shade,) * 3, 1, cv2.LINE_AA)


def _with_names(matrix: Image, rows: Sequence[str], columns: Sequence[str], side: int) -> Image:
    """Put names of classes on the left, and turned ones above."""
    left, above = _labels(rows, side, right=True), np.rot90(_labels(columns, side, right=False))
    out = np.full((above.shape[0] + len(matrix), left.shape[1] + matrix.shape[1], 3), 255, np.uint8)
    out[above.shape[0] :, : left.shape[1]] = left
    out[: above.shape[0], left.shape[1] :] = above
    out[above.shape[0] :, left.shape[1] :] = matrix
    return out


def _labels(names: Sequence[str], side: int, *, right: bool) -> Image:
    """Write names below each other, to the right or to the left."""
    plain = [name.encode("ascii", "replace").decode() for name in names]
    widths = [cv2.getTextSize(name, _FONT, _SIZE, 1)[0][0] for name in plain]
    out = np.full((side * len(names), max(widths) + 12, 3), 255, np.uint8)
    for number, (name, width) in enumerate(zip(plain, widths, strict=True)):
        at = (out.shape[1] - width - 6 if right else 6, number * side + side // 2 + 4)
        cv2.putText(out, name, at, _FONT, _SIZE, (20, 20, 20), 1, cv2.LINE_AA)
    return out
