"""Generated clips with their labels and their true motion, in memory: what a check of learning is made on.

The label of a clip is its motion (`synthetic.MOTIONS`). Textures, outlines, sizes, speeds and the place of the crop are
drawn anew for every clip and independently of the label, so what a clip looks like says nothing about it. The object is
brighter or darker than its background, which is drawn too.

n clips, T frames and E extra ones of H x W px, L layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from system.core.pairs import FramePair
from system.core.seeds import Purpose, generator
from system.data.synthetic import MOTIONS, Layer, Scene, moving_scene

# What a model of a few hundred thousand weights can learn to tell in two minutes. Not `cross`, which has one object
# more; not turning, which shows in the texture alone; not `pan`, which is a translation of the object too.
LABELS = ("left", "right", "up", "down", "grow", "shrink", "still")
assert set(LABELS) <= set(MOTIONS)
# Background and one object.
LAYERS = 2
# Grey levels: the background's mean, and how much brighter or darker the object is. Which of both is drawn for each
# clip, so that no pixel's brightness says where the object is: what tells the motion is not linear in the pixels.
MIDDLE, DIFFERENCE = 128, 70
# Contrast of the textures, as a multiple of what `moving_scene` draws.
CONTRAST = 0.8
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
        extra: (n, E, H, W, 3) uint8, the frames at `extra_offsets`.
        extra_offsets: (E,) int64, frames of the scene from the clip's first frame (`Method.extra_frames`).
    """

    frames: NDArray[np.uint8]
    labels: NDArray[np.int64]
    owner: NDArray[np.uint8]
    poses: NDArray[np.float32]
    extra: NDArray[np.uint8]
    extra_offsets: NDArray[np.int64]

    def __len__(self) -> int:
        """Return n."""
        return len(self.labels)

    def part(self, rows: slice | NDArray[np.int64]) -> SceneSet:
        """Return some of the clips."""
        return SceneSet(
            self.frames[rows],
            self.labels[rows],
            self.owner[rows],
            self.poses[rows],
            self.extra[rows],
            self.extra_offsets,
        )

    def extra_at(self, offsets: Sequence[int]) -> NDArray[np.uint8]:
        """Return the extra frames at some offsets: (n, len(offsets), H, W, 3) uint8.

        Raises:
            ValueError: if one of them was not rendered.
        """
        known = self.extra_offsets.tolist()
        missing = sorted(set(offsets) - set(known))
        if missing:
            raise ValueError(f"the set holds extra frames at {known}, not at {missing}")
        return self.extra[:, [known.index(offset) for offset in offsets]]

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


@dataclass(frozen=True, slots=True)
class ClipShape:
    """How a clip is cut from its scene.

    Attributes:
        num_frames: T.
        stride: frames of the scene from one frame of the clip to the next.
        size: side of the clip, px.
        extra: offsets of the extra frames.
    """

    num_frames: int
    stride: int
    size: int
    extra: tuple[int, ...] = ()

    @property
    def span(self) -> int:
        """Frames of the scene."""
        return max((self.num_frames - 1) * self.stride, *self.extra, 0) + 1


def _grey(texture: NDArray[np.uint8], mean: int) -> NDArray[np.uint8]:
    """Return a texture without colours and with another mean: (h, w, 3) uint8."""
    values = texture.astype(np.float32).mean(-1, keepdims=True).repeat(3, -1)
    values = mean + CONTRAST * (values - values.mean())
    return np.asarray(np.clip(values, 0, 255), np.uint8)


def clip_scene(seed: int, index: int, shape: ClipShape) -> Scene:
    """Return the scene of one clip with all of its frames: a crop of a larger scene; labels take turns with `index`."""
    whole = round(shape.size * SCENE_PER_CROP)
    label = LABELS[index % len(LABELS)]
    scene = moving_scene(seed, index, size=(whole, whole), num_frames=shape.span, label=label)
    draw = generator(seed, Purpose.CROP, position=index)
    offset = draw.integers(0, whole - shape.size + 1, 2)
    means = (MIDDLE, MIDDLE + DIFFERENCE * int(draw.choice([-1, 1])))
    layers = []
    for layer, mean in zip(scene.layers, means, strict=True):
        poses = layer.poses.copy()
        poses[:, :, 2] -= offset
        layers.append(Layer(_grey(layer.texture, mean), layer.alpha, poses))
    return Scene(tuple(layers), shape.size, shape.size, label)


def make_scene_set(seed: int, count: int, shape: ClipShape) -> SceneSet:
    """Render a set of clips; two seeds share no texture."""
    side = (shape.size, shape.size)
    frames = np.empty((count, shape.num_frames, *side, 3), np.uint8)
    extra = np.empty((count, len(shape.extra), *side, 3), np.uint8)
    owner = np.empty((count, shape.num_frames, *side), np.uint8)
    poses = np.empty((count, LAYERS, shape.num_frames, 2, 3), np.float32)
    times = [time * shape.stride for time in range(shape.num_frames)]
    for index in range(count):
        scene = clip_scene(seed, index, shape)
        poses[index] = [layer.poses[times] for layer in scene.layers]
        for number, time in enumerate(times):
            frames[index, number], owner[index, number] = scene.frame(time), scene.owner(time)
        for number, time in enumerate(shape.extra):
            extra[index, number] = scene.frame(time)
    labels = np.arange(count, dtype=np.int64) % len(LABELS)
    return SceneSet(frames, labels, owner, poses, extra, np.array(shape.extra, np.int64))


def save_scene_set(scenes: SceneSet, folder: Path) -> None:
    """Write a set as a folder of .npy files, which processes can map into memory together."""
    folder.mkdir(parents=True, exist_ok=True)
    for field in fields(SceneSet):
        np.save(folder / f"{field.name}.npy", getattr(scenes, field.name))


def load_scene_set(folder: Path) -> SceneSet:
    """Map what `save_scene_set` wrote into memory."""
    names = [field.name for field in fields(SceneSet)]
    return SceneSet(*(np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in names))
