"""Videos with the masks of their objects, in the layout of DAVIS-2017 on disk or in S3; all of it is checked first.

    ROOT/ImageSets/2017/val.txt                 the names of the sequences, one a line
    ROOT/JPEGImages/480p/NAME/00000.jpg         frames
    ROOT/Annotations/480p/NAME/00000.png        their masks: 0 background, 1, 2, ... objects, 255 void

A mask is (H, W) uint8. Objects are those of the first frame's mask: that is what "semi-supervised" means.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePosixPath

import cv2
import numpy as np
from numpy.typing import NDArray

from system import storage
from system.data.indexed_png import Numbers, checked_header, read_numbers
from system.data.labels import examples
from system.errors import DataError

Image = NDArray[np.uint8]

LISTS, FRAMES, MASKS = "ImageSets/2017", "JPEGImages", "Annotations"
# Pixels that nobody has labelled: background to the public evaluation, and so to us.
VOID = 255
# The first frame is given and the last is not scored (semi-supervised protocol), so fewer leave nothing to score.
LEAST_FRAMES = 3
# Bytes of a JPEG in which its size stands, as a rule: less than the whole file, for stores that are far away.
_HEAD_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class VideoSequence:
    """One video.

    Attributes:
        name: of its folder.
        frames: URIs of its frames, in order.
        masks: URIs of their masks.
        height: of frames and masks, px.
        width: of frames and masks, px.
        objects: numbers of the objects in the first frame.
    """

    name: str
    frames: tuple[str, ...]
    masks: tuple[str, ...]
    height: int
    width: int
    objects: tuple[int, ...]


@dataclass
class _Problems:
    """What is wrong, by kind; told all at once."""

    found: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, example: str) -> None:
        self.found.setdefault(kind, []).append(example)

    def refuse(self, root: str) -> None:
        """Raise what was found.

        Raises:
            DataError: if anything was.
        """
        if not self.found:
            return
        lines = [f"  {len(found)} x {kind}: {examples(found)}" for kind, found in self.found.items()]
        raise DataError(
            f"{root}: the layout is DAVIS-2017's ({LISTS}/SET.txt, {FRAMES}/480p/NAME/*.jpg, {MASKS}/480p/NAME/*.png),"
            " and this is not; nothing was computed:\n" + "\n".join(lines)
        )


def open_davis(
    root: str, subset: str = "val", resolution: str = "480p", only: Collection[str] = ()
) -> list[VideoSequence]:
    """Find the sequences of a set, and check every file of theirs as far as that goes without decoding all of them.

    Args:
        root: folder or s3:// prefix.
        subset: name of the list of sequences, without `.txt`.
        resolution: name of the folder below frames and masks.
        only: names of the sequences that are wanted; all of the list if there are none.

    Raises:
        DataError: if parts are missing or do not fit each other; says all kinds, with counts and three examples.
        StorageFault: if storage does not answer.
    """
    problems = _Problems()
    names = _listed(root, subset, only, problems)
    folders = [storage.join(root, part, resolution) for part in (FRAMES, MASKS)]
    frames = _files(folders[0], (".jpg", ".jpeg"), problems)
    masks = _files(folders[1], (".png",), problems)
    problems.refuse(root)
    for name in names:
        _compare(name, frames.get(name, {}), masks.get(name, {}), resolution, problems)
    problems.refuse(root)
    sequences = [_opened(name, frames[name], masks[name], problems) for name in names]
    problems.refuse(root)
    return [sequence for sequence in sequences if sequence is not None]


def _listed(root: str, subset: str, only: Collection[str], problems: _Problems) -> list[str]:
    part = f"{LISTS}/{subset}.txt"
    try:
        lines = storage.read(storage.join(root, part)).decode(errors="replace").splitlines()
    except DataError:
        problems.add("missing or unreadable", part)
        return []
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        problems.add("a list without a sequence", part)
    for name in sorted({name for name in names if names.count(name) > 1}):
        problems.add(f"named twice in {part}", name)
    for name in sorted(set(only) - set(names)):
        problems.add(f"asked for and not in {part}", name)
    return [name for name in names if not only or name in only]


def _files(folder: str, endings: tuple[str, ...], problems: _Problems) -> dict[str, dict[str, str]]:
    """Return the files of each sequence: name -> stem -> URI, in order of the stems."""
    found: dict[str, dict[str, str]] = {}
    try:
        for listed in storage.list_objects(folder, follow_links=True):
            path = PurePosixPath(listed.uri)
            if path.suffix.lower() in endings:
                found.setdefault(path.parent.name, {})[path.stem] = listed.uri
    except DataError:
        problems.add("a folder that is missing or may not be read", folder)
        return {}
    return {name: dict(sorted(stems.items())) for name, stems in found.items()}


def _compare(
    name: str, frames: Mapping[str, str], masks: Mapping[str, str], resolution: str, problems: _Problems
) -> None:
    """Compare which frames and which masks of a sequence there are."""
    for part, there in ((FRAMES, frames), (MASKS, masks)):
        if not there:
            problems.add(f"a listed sequence without files in {part}/{resolution}", name)
    if not frames or not masks:
        return
    for stem in sorted(frames.keys() - masks.keys()):
        problems.add("a frame without a mask (sets without public masks cannot be scored)", f"{name}/{stem}")
    for stem in sorted(masks.keys() - frames.keys()):
        problems.add("a mask without a frame", f"{name}/{stem}")
    if len({len(stem) for stem in frames}) > 1:
        lengths = f"{min(frames, key=len)}, {max(frames, key=len)}"
        problems.add(
            "a sequence whose frames' names differ in length, so that 10 comes before 2", f"{name} ({lengths})"
        )
    if len(frames) < LEAST_FRAMES:
        problems.add(f"a sequence of fewer than {LEAST_FRAMES} frames, of which none would be scored", name)


def _opened(
    name: str, frames: Mapping[str, str], masks: Mapping[str, str], problems: _Problems
) -> VideoSequence | None:
    """Look at every header of a sequence, and at the first mask."""
    before = sum(map(len, problems.found.values()))
    sizes = storage.in_parallel([partial(_frame_size, uri) for uri in frames.values()])
    looks = storage.in_parallel([partial(_mask_size, uri) for uri in masks.values()])
    height, width = sizes[0] or (0, 0)
    for stem, size, look in zip(frames, sizes, looks, strict=True):
        if size is None:
            problems.add("a frame that is no JPEG", f"{name}/{stem}")
        elif size != (height, width):
            problems.add("a frame of another size than the sequence's first", f"{name}/{stem} {_told(size)}")
        if isinstance(look, str):
            problems.add("a mask that cannot be read", f"{name}/{stem} ({look})")
        elif size is not None and look != size:
            problems.add(
                "a mask of another size than its frame", f"{name}/{stem} {_told(look)}, the frame {_told(size)}"
            )
    if sum(map(len, problems.found.values())) > before:
        return None
    objects = _objects(next(iter(masks.values())), name, problems)
    return VideoSequence(name, tuple(frames.values()), tuple(masks.values()), height, width, objects)


def _told(size: tuple[int, int]) -> str:
    return f"{size[1]} x {size[0]}"


def _objects(first_mask: str, name: str, problems: _Problems) -> tuple[int, ...]:
    try:
        numbers = np.unique(read_mask(first_mask))
    except DataError as error:
        problems.add("a mask that cannot be read", f"{name} ({error})")
        return ()
    objects = tuple(int(number) for number in numbers if number)
    if not objects:
        problems.add(f"a first mask without an object (0 is background, {VOID} void)", name)
    return objects


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Return height and width, px, of a JPEG that begins with these bytes; None if they do not say it.

    They stand in the first start-of-frame segment (ITU-T T.81, B.2.2); segments before it are passed over.
    """
    place = 2
    while data[:2] == b"\xff\xd8" and place + 9 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:  # filling
            place += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, place + 5)
            return (height, width) if height and width else None
        else:
            place += 2 + struct.unpack_from(">H", data, place + 2)[0]
    return None


def _frame_size(uri: str) -> tuple[int, int] | None:
    length = storage.size(uri)
    found = jpeg_size(storage.read(uri, 0, min(length, _HEAD_BYTES)))
    return found or (jpeg_size(storage.read(uri)) if length > _HEAD_BYTES else None)


def _mask_size(uri: str) -> tuple[int, int] | str:
    """Return a mask's size, or why it cannot be read."""
    try:
        header = checked_header(storage.read(uri))
    except ValueError as error:
        return str(error)
    return header.height, header.width


def read_mask(uri: str) -> Numbers:
    """Read a mask; void pixels become background.

    Raises:
        DataError: if it is missing or damaged.
        StorageFault: if storage does not answer.
    """
    try:
        numbers = read_numbers(storage.read(uri))
    except ValueError as error:
        raise DataError(f"{uri}: {error}") from error
    return np.where(numbers == VOID, np.uint8(0), numbers)


def read_frame(uri: str) -> Image:
    """Read a frame: (H, W, 3) uint8 RGB, as it is stored: masks know nothing of a camera's orientation.

    Raises:
        DataError: if it is missing or damaged.
        StorageFault: if storage does not answer.
    """
    data = np.frombuffer(storage.read(uri), np.uint8)
    found = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION) if len(data) else None
    if found is None:
        raise DataError(f"{uri}: the frame cannot be decoded; fetch it again")
    return np.asarray(cv2.cvtColor(found, cv2.COLOR_BGR2RGB), np.uint8)


def write_list(root: str, subset: str, names: Sequence[str]) -> None:
    """Write the list of a set."""
    storage.write(storage.join(root, LISTS, f"{subset}.txt"), ("\n".join(names) + "\n").encode())
