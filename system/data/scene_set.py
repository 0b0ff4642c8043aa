"""Generated clips with their labels and their true motion, in memory: what a check of learning is made on.

The label of a clip is its motion (`synthetic.MOTIONS`). Textures, outlines, sizes, speeds and the place of the crop are
drawn anew for every clip and independently of the label, so what a clip looks like says nothing about it.

n clips, T frames of H x W px, L layers at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from system.core.seeds import Purpose, generator
from system.core.warp import FramePair
from system.data.synthetic import MOTIONS, Layer, Scene, moving_scene

# `cross` has one object more than the others, which a single frame gives away.
LABELS = tuple(motion for motion in MOTIONS if motion != "cross")
# Background and one object.
LAYERS = 2
# A scene is this much larger than the crop that becomes the clip. Objects pass the middle of the scene halfway through,
# so without a random crop the first frame alone would say from which side they come.
SCENE_PER_CROP = 1.5


@dataclass(frozen=True)
class SceneSet:
    """Clips of one set.

    Attributes:
        frames: (n, T, H, W, 3) uint8.
        labels: (n,) int64, indexes of `LABELS`.
        owner: (n, T, H, W) uint8, the layer that each pixel shows.
        poses: (n, L, T, 2, 3) float32, from a layer's px to the frame's px.
    """

    frames: NDArray[np.uint8]
    labels: NDArray[np.int64]
    owner: NDArray[np.uint8]
    poses: NDArray[np.float32]

    def __len__(self) -> int:
        """Return n."""
        return len(self.labels)

    def part(self, rows: slice | NDArray[np.int64]) -> SceneSet:
        """Return some of the clips."""
        return SceneSet(self.frames[rows], self.labels[rows], self.owner[rows], self.poses[rows])

    def flow(self, pairs: Sequence[FramePair]) -> Tensor:
        """Return the true flow: (n, pairs, H, W, 2) float32 px, x then y, on the grid of a pair's first frame."""
        height, width = self.owner.shape[2:]
        ys, xs = np.mgrid[:height, :width].astype(np.float32)
        here = np.stack([xs, ys, np.ones_like(xs)], -1)
        out = np.empty((len(self), len(pairs), height, width, 2), np.float32)
        for number, pair in enumerate(pairs):
            step = _between(self.poses[:, :, pair.start], self.poses[:, :, pair.end])  # (n, L, 2, 3)
            moved = np.einsum("nlij,hwj->nlhwi", step, here)
            chosen = self.owner[:, pair.start].astype(np.int64)[:, None, ..., None]
            out[:, number] = np.take_along_axis(moved, chosen, 1)[:, 0] - here[..., :2]
        return torch.from_numpy(out)

    def in_sight(self, pairs: Sequence[FramePair]) -> Tensor:
        """Return whether what a pixel shows is seen in the pair's second frame too: (n, pairs, H, W) bool.

        It is not where it has left the frame, or where another layer hides it.
        """
        flow = self.flow(pairs).numpy()
        height, width = self.owner.shape[2:]
        ys, xs = np.mgrid[:height, :width]
        out = np.empty(flow.shape[:-1], np.bool_)
        clip = np.arange(len(self))[:, None, None]
        for number, pair in enumerate(pairs):
            x = np.rint(xs + flow[:, number, ..., 0]).astype(np.int64)
            y = np.rint(ys + flow[:, number, ..., 1]).astype(np.int64)
            inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
            there = self.owner[clip, pair.end, y.clip(0, height - 1), x.clip(0, width - 1)]
            out[:, number] = inside & (there == self.owner[:, pair.start])
        return torch.from_numpy(out)


def _between(start: NDArray[np.float32], end: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the map from one frame's px to another's: two (n, L, 2, 3) -> (n, L, 2, 3)."""
    linear = end[..., :2] @ np.linalg.inv(start[..., :2])
    offset = end[..., 2] - np.einsum("nlij,nlj->nli", linear, start[..., 2])
    return np.concatenate([linear, offset[..., None]], -1)


def clip_scene(seed: int, index: int, *, num_frames: int, stride: int, size: int) -> Scene:
    """Return the scene of one clip: a crop of a larger scene at every `stride`-th frame.

    Args:
        seed: of the set.
        index: number of the clip; labels take turns.
        num_frames: T.
        stride: frames of the scene from one frame of the clip to the next.
        size: side of the clip, px.
    """
    whole = round(size * SCENE_PER_CROP)
    label = LABELS[index % len(LABELS)]
    scene = moving_scene(seed, index, size=(whole, whole), num_frames=num_frames * stride, label=label)
    offset = generator(seed, Purpose.CROP, position=index).integers(0, whole - size + 1, 2)
    layers = []
    for layer in scene.layers:
        poses = layer.poses[::stride].copy()
        poses[:, :, 2] -= offset
        layers.append(Layer(layer.texture, layer.alpha, poses))
    return Scene(tuple(layers), size, size, label)


def make_scene_set(seed: int, count: int, *, num_frames: int, stride: int, size: int) -> SceneSet:
    """Render a set of clips; two seeds share no texture. Args as `clip_scene`."""
    frames = np.empty((count, num_frames, size, size, 3), np.uint8)
    owner = np.empty((count, num_frames, size, size), np.uint8)
    poses = np.empty((count, LAYERS, num_frames, 2, 3), np.float32)
    for index in range(count):
        scene = clip_scene(seed, index, num_frames=num_frames, stride=stride, size=size)
        poses[index] = [layer.poses for layer in scene.layers]
        for time in range(num_frames):
            frames[index, time], owner[index, time] = scene.frame(time), scene.owner(time)
    return SceneSet(frames, np.arange(count, dtype=np.int64) % len(LABELS), owner, poses)


def save_scene_set(scenes: SceneSet, path: Path) -> None:
    """Write a set as an .npz file."""
    np.savez(path, frames=scenes.frames, labels=scenes.labels, owner=scenes.owner, poses=scenes.poses)


def load_scene_set(path: Path) -> SceneSet:
    """Read what `save_scene_set` wrote."""
    with np.load(path, allow_pickle=False) as file:
        return SceneSet(file["frames"], file["labels"], file["owner"], file["poses"])
