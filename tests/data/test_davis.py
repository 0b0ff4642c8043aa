"""DAVIS's layout: whole sets are opened, others are refused with all that is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from system.data.davis import jpeg_size, open_davis, read_frame, read_mask
from system.data.indexed_png import object_colours, write_numbers
from system.data.masked_scenes import masked_scene, write_davis
from system.errors import DataError

SIZE, FRAMES = (40, 56), 4


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "davis"
    write_davis(str(folder), 3, seed=0, size=SIZE, num_frames=FRAMES)
    return folder


def mask_file(numbers: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    return write_numbers(numbers, object_colours())


def test_a_whole_set_is_opened_with_its_objects_in_order(root: Path) -> None:
    found = open_davis(str(root))
    assert [each.name for each in found] == ["cross-00", "right-01", "clockwise-02"]
    assert [each.objects for each in found] == [(1, 2), (1,), (1,)]
    assert all((each.height, each.width, len(each.frames), len(each.masks)) == (*SIZE, 4, 4) for each in found)
    assert [Path(uri).stem for uri in found[0].frames] == ["00000", "00001", "00002", "00003"]
    assert [each.name for each in open_davis(str(root), only=["right-01"])] == ["right-01"]


def test_generated_masks_are_exactly_the_pixels_that_show_the_objects(root: Path) -> None:
    sequence, scene = open_davis(str(root))[0], masked_scene(0, 0, SIZE, FRAMES)
    for number in range(FRAMES):
        assert (read_mask(sequence.masks[number]) == scene.owner(number)).all()
        error = np.abs(read_frame(sequence.frames[number]).astype(int) - scene.frame(number))
        assert error.mean() < 8  # JPEG


def test_a_set_is_not_written_over(root: Path) -> None:
    with pytest.raises(DataError, match="holds sequences already"):
        write_davis(str(root), 1, seed=0, size=SIZE, num_frames=FRAMES)


def test_void_is_background(root: Path) -> None:
    path = root / "Annotations/480p/right-01/00000.png"
    numbers = np.full(SIZE, 255, np.uint8)
    numbers[:9, :9] = 3
    path.write_bytes(mask_file(numbers))
    assert open_davis(str(root))[1].objects == (3,)
    assert read_mask(str(path)).max() == 3


def remove(part: str) -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        found = sorted(root.glob(part))
        assert found
        for path in found:
            path.unlink()

    return spoil


def write(part: str, data: bytes) -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        root.joinpath(part).write_bytes(data)

    return spoil


SMALL = cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
EMPTY = mask_file(np.zeros(SIZE, np.uint8))
ALL_VOID = mask_file(np.full(SIZE, 255, np.uint8))
RGB = cv2.imencode(".png", np.zeros((*SIZE, 3), np.uint8))[1].tobytes()
RIGHT = "Annotations/480p/right-01"


def unpadded(root: Path) -> None:
    """Name frames and masks of a sequence 8, 9, 10, 11."""
    for path in sorted(root.glob("*/480p/right-01/*")):
        path.rename(path.with_stem(str(int(path.stem) + 8)))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (remove("ImageSets/2017/val.txt"), ["1 x missing or unreadable: ImageSets/2017/val.txt"]),
        (write("ImageSets/2017/val.txt", b"\n"), ["1 x a list without a sequence"]),
        (write("ImageSets/2017/val.txt", b"right-01\nright-01\n"), ["1 x named twice in", "right-01"]),
        (remove("Annotations/480p/*/*"), ["3 x a listed sequence without files in Annotations/480p: cross-00, "]),
        (
            remove("Annotations/480p/*/0000[12].png"),
            ["6 x a frame without a mask", "cross-00/00001, cross-00/00002, right-01/00001 and 3 more"],
        ),
        (remove("JPEGImages/480p/right-01/00003.jpg"), ["1 x a mask without a frame: right-01/00003"]),
        (remove("*/480p/right-01/0000[23].*"), ["1 x a sequence of fewer than 3 frames", "right-01"]),
        (unpadded, ["1 x a sequence whose frames' names differ in length", "right-01 (8, 10)"]),
        (write("JPEGImages/480p/right-01/00001.jpg", b"no image"), ["1 x a frame that is no JPEG: right-01/00001"]),
        (write("JPEGImages/480p/right-01/00001.jpg", SMALL), ["1 x a frame of another size", "right-01/00001 8 x 8"]),
        (
            write(f"{RIGHT}/00002.png", mask_file(np.ones((40, 57), np.uint8))),
            ["1 x a mask of another size than its frame: right-01/00002 57 x 40, the frame 56 x 40"],
        ),
        (write(f"{RIGHT}/00002.png", RGB), ["1 x a mask that cannot be read: right-01/00002 (RGB of 8 bits"]),
        (write(f"{RIGHT}/00000.png", EMPTY), ["1 x a first mask without an object", "right-01"]),
        (write(f"{RIGHT}/00000.png", ALL_VOID), ["1 x a first mask without an object", "right-01"]),
    ],
)
def test_what_does_not_fit_is_refused_with_count_and_examples(
    root: Path, spoil: Callable[[Path], None], says: list[str]
) -> None:
    spoil(root)
    with pytest.raises(DataError) as refused:
        open_davis(str(root))
    assert all(part in str(refused.value) for part in says), refused.value


def test_a_missing_folder_is_told_with_all_of_its_parts(tmp_path: Path) -> None:
    with pytest.raises(DataError) as refused:
        open_davis(str(tmp_path / "none"))
    for part in ("ImageSets/2017/val.txt", "none/JPEGImages/480p", "none/Annotations/480p"):
        assert part in str(refused.value)


def test_kinds_of_problems_are_told_together(root: Path) -> None:
    write(f"{RIGHT}/00002.png", RGB)(root)
    write("JPEGImages/480p/cross-00/00001.jpg", SMALL)(root)
    with pytest.raises(DataError, match=r"(?s)another size than the sequence's first.*cannot be read"):
        open_davis(str(root))


def test_an_unknown_name_is_refused(root: Path) -> None:
    with pytest.raises(DataError, match=r"1 x asked for and not in .*: bear"):
        open_davis(str(root), only=["bear"])


def test_a_jpeg_says_its_size_behind_other_segments() -> None:
    data = cv2.imencode(".jpg", np.zeros((30, 50, 3), np.uint8), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1))[1].tobytes()
    exif = b"\xff\xe1" + (2 + 4000).to_bytes(2, "big") + bytes(4000)
    assert jpeg_size(data) == jpeg_size(data[:2] + exif + data[2:]) == (30, 50)
    assert jpeg_size(data[:2] + exif) is None
    assert jpeg_size(b"") is None


def test_a_frame_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(DataError, match=r"x\.jpg: the frame cannot be decoded"):
        read_frame(str(tmp_path / "x.jpg"))
