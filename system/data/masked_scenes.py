"""Generated videos with the exact masks of their objects, written in DAVIS-2017's layout (davis.py).

One object that moves, turns or grows, or two of which one passes in front of the other. They share no texture with the
videos of `synthetic://moving`.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from system import storage
from system.data.davis import FRAMES, LISTS, MASKS, write_list
from system.data.indexed_png import object_colours, write_numbers
from system.data.synthetic import Scene, moving_scene
from system.errors import DataError

# What the objects do, in turn.
LABELS = ("cross", "right", "clockwise", "grow", "pan", "down", "shrink", "left")
# Places of the generator that no video of `synthetic://` reaches.
_BEYOND = 1 << 32
# Near to DAVIS's own files; at lower ones blocks show.
_JPEG_QUALITY = 92


def masked_scene(seed: int, index: int, size: tuple[int, int], num_frames: int) -> Scene:
    """Return one scene; layers above the background are the objects 1, 2, ..."""
    label = LABELS[index % len(LABELS)]
    return moving_scene(seed, _BEYOND + index, size=size, num_frames=num_frames, label=label, speeds=(1.0, 3.0))


def write_davis(root: str, count: int, *, seed: int, size: tuple[int, int], num_frames: int) -> Sequence[str]:
    """Generate sequences and the list `val` that names them.

    Args:
        root: folder or s3:// prefix that holds none yet.
        count: of sequences.
        seed: of the set.
        size: height and width, px.
        num_frames: of each sequence.

    Returns:
        Their names.

    Raises:
        DataError: if there is such a list already.
    """
    if storage.exists(storage.join(root, LISTS, "val.txt")):
        raise DataError(f"{root} holds sequences already; name another folder, or delete it")
    colours, names = object_colours(), []
    for index in range(count):
        scene = masked_scene(seed, index, size, num_frames)
        names.append(f"{scene.label}-{index:02d}")
        for number in range(num_frames):
            frame = cv2.cvtColor(scene.frame(number), cv2.COLOR_RGB2BGR)
            done, data = cv2.imencode(".jpg", frame, (cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY))
            assert done
            storage.write(storage.join(root, FRAMES, "480p", names[-1], f"{number:05d}.jpg"), data.tobytes())
            mask = write_numbers(scene.owner(number).astype(np.uint8), colours)
            storage.write(storage.join(root, MASKS, "480p", names[-1], f"{number:05d}.png"), mask)
    write_list(root, "val", names)  # last: with it the set is whole
    return names
