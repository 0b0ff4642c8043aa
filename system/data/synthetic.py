"""Generated videos whose motion is known: textured objects over a textured background.

A scene is a stack of layers, each with an affine pose for every frame, so the true flow between any two frames follows
from the poses. What moves how is the video's label; what it looks like says nothing about it. Videos are H.264 without
B-frames and with one reference, so their motion vectors mean what they seem to mean.

H x W px, F frames of the video. Poses are (F, 2, 3) float64: from a layer's own px to the frame's px, x then y.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import cv2
import numpy as np
from numpy.typing import NDArray

from system.core.seeds import Purpose, generator

Image = NDArray[np.uint8]
Poses = NDArray[np.float64]

# Of the videos: frames a second, and frames from one key frame to the next.
FPS, KEY_EVERY = Fraction(25), 32
# The labels: what the motion is, in the order of their numbers.
MOTIONS = ("left", "right", "up", "down", "clockwise", "anticlockwise", "grow", "shrink", "pan", "cross", "still")


@dataclass(frozen=True)
class Layer:
    """A texture with its own pixels and a pose per frame.

    Attributes:
        texture: (h, w, 3) uint8.
        alpha: (h, w) uint8, 255 where the layer is solid.
        poses: (F, 2, 3) from the layer's px to the frame's px.
    """

    texture: Image
    alpha: Image
    poses: Poses


@dataclass(frozen=True)
class Scene:
    """Layers from back to front; the first one covers the whole frame at all times."""

    layers: tuple[Layer, ...]
    height: int
    width: int
    label: str

    @property
    def num_frames(self) -> int:
        """Frames of the video."""
        return len(self.layers[0].poses)

    def frame(self, index: int) -> Image:
        """Draw one frame: (H, W, 3) uint8."""
        size = (self.width, self.height)
        canvas = np.zeros((self.height, self.width, 3), np.float32)
        for layer in self.layers:
            pose = layer.poses[index]
            colour = cv2.warpAffine(layer.texture, pose, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
            solid = cv2.warpAffine(layer.alpha, pose, size, flags=cv2.INTER_LINEAR)[..., None] / np.float32(255)
            canvas += (colour - canvas) * solid
        return np.asarray(np.clip(canvas + 0.5, 0, 255), np.uint8)

    def owner(self, index: int) -> NDArray[np.int64]:
        """Return which layer each pixel of a frame shows: (H, W)."""
        top = np.zeros((self.height, self.width), np.int64)
        for number, layer in enumerate(self.layers[1:], start=1):
            solid = cv2.warpAffine(layer.alpha, layer.poses[index], (self.width, self.height))
            top[solid > 127] = number
        return top

    def flow(self, start: int, end: int) -> NDArray[np.float32]:
        """Return the true flow from frame `start` to frame `end`: (H, W, 2) px, x then y, on the grid of `start`.

        What a pixel of `start` shows lies at x + flow(x) in `end`, hidden there by another layer or not.
        """
        ys, xs = np.mgrid[: self.height, : self.width].astype(np.float64)
        here = np.stack([xs, ys], -1)
        moved = np.stack([_then(_inverse(layer.poses[start]), layer.poses[end], here) for layer in self.layers])
        chosen = np.take_along_axis(moved, self.owner(start)[None, ..., None], 0)[0]
        return np.asarray(chosen - here, np.float32)


def _inverse(pose: Poses) -> Poses:
    return np.asarray(cv2.invertAffineTransform(pose), np.float64)


def _then(first: Poses, second: Poses, points: Poses) -> Poses:
    middle = points @ first[:, :2].T + first[:, 2]
    return middle @ second[:, :2].T + second[:, 2]


def texture(draw: np.random.Generator, height: int, width: int) -> Image:
    """Draw smooth noise of several scales about a colour, dark to light: something to follow everywhere."""
    total = np.zeros((height, width), np.float32)
    for cell, weight in ((32, 1.0), (13, 0.7), (5, 0.35)):
        coarse = draw.random((height // cell + 3, width // cell + 3), np.float32)
        total += weight * cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    low, high = float(total.min()), float(total.max())
    mix = ((total - low) / max(high - low, 1e-6))[..., None]
    colour, spread = draw.integers(50, 206, 3), draw.integers(30, 51, 3)
    return (colour + (2 * mix - 1) * spread).astype(np.uint8)


def _blob(draw: np.random.Generator, side: int) -> Image:
    """Draw the outline of an object: a smooth closed curve inside a square."""
    angle = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    radius = np.ones_like(angle)
    for wave in (2, 3, 5):
        radius += 0.18 * draw.random() * np.cos(wave * angle + 2 * np.pi * draw.random())
    points = side / 2 + 0.46 * side * (radius / radius.max())[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    mask = np.zeros((side, side), np.uint8)
    cv2.fillPoly(mask, [points.astype(np.int32)], (255,))
    return mask


def _poses(
    centre: NDArray[np.float64], pivot: NDArray[np.float64], angle: NDArray[np.float64], scale: NDArray[np.float64]
) -> Poses:
    """Turn and scale about `pivot` (layer px), then put it at `centre` (frame px): each (F, 2) or (F,)."""
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    linear = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], 1)  # (F, 2, 2)
    offset = centre - linear @ pivot
    return np.concatenate([linear, offset[..., None]], -1)


def _object_path(
    label: str, speed: float, num_frames: int, size: tuple[int, int], draw: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return centre (F, 2), angle (F,) and scale (F,) of an object that moves as its label says."""
    time = np.arange(num_frames) - (num_frames - 1) / 2
    direction = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1), "cross": (1, 0)}.get(label, (0, 0))
    height, width = size
    middle = np.array([width, height]) * (0.5 + 0.2 * (draw.random(2) - 0.5))
    centre = middle + speed * time[:, None] * np.array(direction)
    turn = {"clockwise": 1, "anticlockwise": -1}.get(label, 0)
    angle = turn * speed / 30 * time + draw.random() * 2 * np.pi
    growth = {"grow": 1, "shrink": -1}.get(label, 0)
    scale = np.clip(np.exp(growth * speed / 60 * time), 0.35, 2.5)
    return np.asarray(centre, np.float64), np.asarray(angle, np.float64), np.asarray(scale, np.float64)


def moving_scene(
    seed: int,
    index: int,
    *,
    size: tuple[int, int] = (128, 160),
    num_frames: int = 64,
    label: str | None = None,
    speeds: tuple[float, float] = (0.5, 2.0),
) -> Scene:
    """Make one scene.

    Args:
        seed: of the whole set.
        index: number of the video in the set.
        size: height and width, px.
        num_frames: frames of the video.
        label: one of `MOTIONS`; default: they take turns.
        speeds: the lowest and the highest, px a frame.

    Returns:
        A scene of a background and one or two objects. `pan` moves background and object alike, `cross` lets two
        objects pass each other, one in front of the other.
    """
    draw = generator(seed, Purpose.SYNTHETIC, position=index)
    label = MOTIONS[index % len(MOTIONS)] if label is None else label
    height, width = size
    speed = speeds[0] + (speeds[1] - speeds[0]) * draw.random()
    margin = int(speed * num_frames) + 8
    back = texture(draw, height + 2 * margin, width + 2 * margin)
    still = np.zeros(num_frames)
    pan = np.zeros((num_frames, 2))
    if label == "pan":
        heading = draw.random() * 2 * np.pi
        pan = speed * np.arange(num_frames)[:, None] * np.array([np.cos(heading), np.sin(heading)])
        pan -= pan.mean(0)
    ground = _poses(pan - margin, np.zeros(2), still, still + 1)
    layers = [Layer(back, np.full(back.shape[:2], 255, np.uint8), ground)]
    for number in range(2 if label == "cross" else 1):
        side = int(min(size) * (0.35 + 0.2 * draw.random()))
        centre, angle, scale = _object_path(label, -speed if number else speed, num_frames, size, draw)
        poses = _poses(centre + pan, np.full(2, side / 2), angle, scale)
        layers.append(Layer(texture(draw, side, side), _blob(draw, side), poses))
    return Scene(tuple(layers), height, width, label)


def encode(frames: Iterator[Image], height: int, width: int) -> bytes:
    """Write frames as an H.264 .mp4 with one reference and no B-frames, a key frame every 32; always the same bytes."""
    import av  # noqa: PLC0415  scenes are drawn on hosts without it

    target = io.BytesIO()
    with av.open(target, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {
            "crf": "20",
            "preset": "veryfast",
            # In plain C: its assembly reads memory that nobody wrote, and one video in a hundred came out otherwise.
            "x264-params": f"bframes=0:ref=1:keyint={KEY_EVERY}:scenecut=0:weightp=0:threads=1:asm=0",
        }
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return target.getvalue()


def moving_video(
    seed: int, index: int, *, size: tuple[int, int] = (128, 160), num_frames: int = 64
) -> tuple[str, bytes]:
    """Make and encode one video of the set: its label and its bytes."""
    scene = moving_scene(seed, index, size=size, num_frames=num_frames)
    return scene.label, encode((scene.frame(i) for i in range(num_frames)), *size)
