"""The clips that `mask` and `step` are measured on: drawn in memory, or the first ones of a folder of videos.

T frames of H x W px. Nothing here needs PyAV unless a folder is given.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from system.benchmark.stages import Asked
from system.core.clip import TokenGrid, frame_numbers
from system.core.masks import Noise
from system.core.seeds import Purpose, generator
from system.data.scene_set import ClipShape, make_scene_set
from system.errors import DataError

SYNTHETIC = "synthetic"
# Original frames from one sampled frame to the next, as in the recipes for Kinetics.
STRIDE = 4
SUFFIXES = (".mp4", ".mkv", ".mov", ".webm", ".avi")


def clips(asked: Asked, count: int, grid: TokenGrid) -> NDArray[np.uint8]:
    """Return clips of the size that the model sees: (count, T, H, W, 3) uint8 RGB.

    Raises:
        DataError: if the folder holds no video.
    """
    if asked.videos != SYNTHETIC:
        if importlib.util.find_spec("av") is not None:
            return _of_folder(Path(asked.videos), count, grid)
        asked.say("PyAV is not installed, so generated clips stand in for those of the folder")
    return make_scene_set(0, count, ClipShape(grid.num_frames, STRIDE, grid.height)).frames


def _of_folder(folder: Path, count: int, grid: TokenGrid) -> NDArray[np.uint8]:
    """Decode the first clip of each video of a folder, over again until there are enough."""
    from system.data.augment import draw_crop  # noqa: PLC0415  PyAV
    from system.data.containers import open_video  # noqa: PLC0415
    from system.data.decode import ClipRequest, decode_pyav  # noqa: PLC0415

    paths = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)[:count]
    if not paths:
        raise DataError(f"--videos {folder}: holds no {', '.join(SUFFIXES)} file; give another folder, or {SYNTHETIC}")
    made = []
    for number, path in enumerate(paths):
        with path.open("rb") as file:
            container, stream = open_video(file)
            length = stream.frames or grid.num_frames * STRIDE
            container.close()
            file.seek(0)
            frames = frame_numbers(0, length, grid.num_frames, STRIDE)
            request = ClipRequest(frames, (draw_crop(generator(0, Purpose.CROP, position=number)),), grid.height)
            made.append(decode_pyav(file, request)[0])
    return np.stack([made[number % len(made)] for number in range(count)])


def noise(count: int, grid: TokenGrid) -> Noise:
    """Draw the numbers of each clip's mask: (count, S, F) float32 in [0, 1)."""
    return generator(0, Purpose.MASK).random((count, grid.slots, grid.places), np.float32)
