"""One picture of a run: what goes in, how it moves, what the encoder sees, what comes back.

Each clip is a block of rows over time: input, flow as colours (the hue is the direction, the strength the speed),
visible tokens, the reconstruction with what a model can know, and, where targets are normalised per patch, the
reconstruction with the true statistics of every patch, which flatters and says so; then the method's other targets.

Frames are (T, H, W, 3); N tokens, M hidden ones, P values per token.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from system.config import MotionSection
from system.core.clip import TokenGrid
from system.core.pairs import FramePair
from system.core.plan import StepLayout
from system.core.targets import patchify, token_statistics, unpatchify
from system.data.assemble import StreamSpec, local_blocks
from system.data.columns import Batch
from system.methods.base import Clips, Networks
from system.motion.base import MotionSource, motion_source
from system.recipe import Recipe
from system.train.batch import MicroBatch, micro_batches
from system.train.session import frozen_networks

Image = NDArray[np.uint8]

GREY = 128
# Flow of fewer px has no full strength on a picture: what stands still would show its noise.
STILL_PX = 0.5
MARGIN = 6
TEXT_WIDTH = 190


def flow_colours(flow: NDArray[np.float32], largest: float) -> Image:
    """Show flow as colours: (H, W, 2) px -> (H, W, 3) uint8 RGB; `largest` px and more have full strength."""
    angle = np.arctan2(flow[..., 1], flow[..., 0])
    strength = np.clip(np.hypot(flow[..., 0], flow[..., 1]) / max(largest, 1e-3), 0, 1)
    hsv = np.stack([(angle + np.pi) / (2 * np.pi) * 179, strength * 255, np.full_like(angle, 255)], -1)
    return np.asarray(cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB), np.uint8)


def show_visible(frames: Image, visible: NDArray[np.bool_], grid: TokenGrid) -> Image:
    """Paint hidden tokens grey: (T, H, W, 3) and (N,) -> (T, H, W, 3)."""
    seen = visible.reshape(grid.slots, grid.rows, grid.cols)
    for axis, times in ((0, grid.tubelet_frames), (1, grid.patch_px), (2, grid.patch_px)):
        seen = seen.repeat(times, axis)
    return np.where(seen[..., None], frames, np.uint8(GREY))


def _visible_statistics(patches: Tensor, shown: Tensor, grid: TokenGrid) -> tuple[Tensor, Tensor]:
    """Guess every token's mean and deviation from the visible ones near it: what a model could know.

    Args:
        patches: (B, N, pixels, 3).
        shown: (B, V).
        grid: the token grid.

    Returns:
        Two (B, N, 1, 3): averages over visible tokens, weighted by a Gaussian of the distance in tokens.
    """
    index = torch.arange(grid.tokens)
    slot, place = index // grid.places, index % grid.places
    where = torch.stack([slot, place // grid.cols, place % grid.cols], -1).float()
    distance = torch.cdist(where[None].expand(len(patches), -1, -1), where[shown])  # (B, N, V)
    weight = torch.softmax(-(distance**2) / 2, -1)
    mean, std = token_statistics(patches)
    pick = shown[..., None, None].expand(-1, -1, 1, 3)
    return (
        torch.einsum("bnv,bvic->bnic", weight, mean.gather(1, pick)),
        torch.einsum("bnv,bvic->bnic", weight, std.gather(1, pick)),
    )


@dataclass(frozen=True, slots=True)
class Shown:
    """One row of a clip on the picture: its name, a note, and (B, 3, T, H, W) in [0, 1]."""

    name: str
    note: str
    frames: Tensor


def _put(whole: Tensor, batch: MicroBatch, values: Tensor) -> Tensor:
    """Put predicted values where the encoder saw nothing: (B, N, P) and (B, K, P) -> (B, N, P)."""
    index = batch.predicted[..., None].expand_as(values)
    if batch.counted is not None:
        values = torch.where(batch.counted[..., None] > 0, values, whole.gather(1, index))
    return whole.scatter(1, index, values)


@torch.inference_mode()
def reconstructions(
    recipe: Recipe, module: nn.Module, batch: MicroBatch, frozen: Networks | None = None
) -> list[Shown]:
    """Predict tokens and put them between the visible ones.

    Returns:
        Of pixels one row, or two where targets are normalised: with the statistics of visible tokens only, and with the
        true ones. Of every other target that can be shown two: the truth and the prediction.
    """
    grid, method, options = recipe.grid, recipe.record, recipe.method
    predicted = module(batch.frames, batch.shown, batch.predicted)
    rows = _pixel_rows(recipe, batch, predicted["pixels"].float()) if "pixels" in predicted else []
    clips = Clips(batch.frames, batch.extra, batch.carried, frozen or {})
    for name, drawing in method.drawn(options).items():
        wanted = method.targets[name](clips, grid, options)
        made = _put(wanted, batch, drawing.read(predicted[name], options).to(wanted.dtype))
        rows.append(Shown(f"{name}, true", "", drawing.frames(wanted, clips, grid, options)))
        rows.append(Shown(f"{name}, predicted", "", drawing.frames(made, clips, grid, options)))
    return rows


def _pixel_rows(recipe: Recipe, batch: MicroBatch, predicted: Tensor) -> list[Shown]:
    grid = recipe.grid
    patches = patchify(batch.frames, grid)
    predicted = predicted.reshape(*predicted.shape[:-1], -1, 3)

    def whole(values: Tensor) -> Tensor:
        return unpatchify(_put(patches.flatten(2), batch, values.flatten(2)), grid).clamp(0, 1)

    if not getattr(recipe.method, "normalize_target", True):
        return [Shown("reconstruction", "predicted as it is", whole(predicted))]
    small = batch.predicted[..., None, None].expand(-1, -1, 1, 3)
    statistics = (_visible_statistics(patches, batch.shown, grid), token_statistics(patches))
    guessed, true = (whole(predicted * std.gather(1, small) + mean.gather(1, small)) for mean, std in statistics)
    return [
        Shown("reconstruction", "visible statistics only", guessed),
        Shown("with true statistics", "of each hidden patch", true),
    ]


def _frames_of(clip: Tensor) -> Image:
    """(3, T, H, W) in [0, 1] -> (T, H, W, 3) uint8."""
    return np.asarray((clip.permute(1, 2, 3, 0) * 255).round().byte().numpy(), np.uint8)


def _clip_rows(
    recipe: Recipe, source: MotionSource, frames: Image, visible: NDArray[np.bool_], made: list[Shown]
) -> Iterator[tuple[str, str, list[Image]]]:
    """Yield name, note and images of each row of one clip, one image per slot."""
    grid, step = recipe.grid, recipe.grid.tubelet_frames
    starts = range(0, grid.num_frames, step)
    pairs = [FramePair(start, min(start + 1, grid.num_frames - 1)) for start in starts]
    flow = source(frames[None], pairs)[0].cpu().numpy()
    largest = max(STILL_PX, float(np.quantile(np.hypot(flow[..., 0], flow[..., 1]), 0.995)))
    yield "input", "", [frames[start] for start in starts]
    yield "flow", _flow_note(recipe), [flow_colours(each, largest) for each in flow]
    yield "visible", "grey: hidden", [show_visible(frames, visible, grid)[start] for start in starts]
    for row in made:
        shown = _frames_of(row.frames[0])
        yield row.name, row.note, [shown[start] for start in starts]


def _flow_note(recipe: Recipe) -> str:
    """Say where the flow is from if it is not what made the mask: the stream's vectors are not at hand here."""
    from_stream = recipe.needs_motion and recipe.flow.source == "codec"
    return f"hue: direction; by {recipe.flow.fallback}" if from_stream else "hue: direction"


def _shown_motion(recipe: Recipe) -> MotionSection:
    """Return where the picture's flow comes from: frames are all it has."""
    return recipe.flow if recipe.needs_motion else MotionSection(source="dis")


def _text(height: int, line: str, note: str) -> Image:
    canvas = np.full((height, TEXT_WIDTH, 3), 255, np.uint8)
    font = cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(canvas, line, (4, height // 2), font, 0.42, (20, 20, 20), 1, cv2.LINE_AA)
    cv2.putText(canvas, note, (4, height // 2 + 16), font, 0.36, (120, 120, 120), 1, cv2.LINE_AA)
    return canvas


def row(images: list[Image], line: str, note: str) -> Image:
    """Put images of one height beside each other, with a line of text and a note on their left."""
    gap = np.full((images[0].shape[0], 2, 3), 255, np.uint8)
    parts = [_text(images[0].shape[0], line, note)]
    for image in images:
        parts += [image, gap]
    return np.concatenate(parts, 1)


@dataclass(frozen=True)
class Row:
    """One row of a clip: its name, a note, and an image for each slot."""

    name: str
    note: str
    images: list[Image]


@dataclass(frozen=True)
class ShownClip:
    """A clip as it is shown.

    Attributes:
        video_id: of the index.
        start: its first frame.
        visible: (N,) bool.
        rows: input, flow, visible tokens, then what the model made of them.
        flow: (S - 1, H, W, 2) float32 px, from each slot's first frame to the next one's.
    """

    video_id: int
    start: int
    visible: NDArray[np.bool_]
    rows: list[Row]
    flow: NDArray[np.float32]


def shown_clips(
    recipe: Recipe, module: nn.Module, block: Batch, clips: int, frozen: Networks | None = None
) -> list[ShownClip]:
    """Show some clips of a block.

    Args:
        recipe: of the run.
        module: its model, on the CPU.
        block: from the stream.
        clips: how many, of different videos if there are as many.
        frozen: the method's frozen networks.
    """
    source = motion_source(_shown_motion(recipe))
    usable = np.flatnonzero((block["weight"] > 0) & (block["view"] == 0))[:clips]
    chosen = {name: values[usable] for name, values in block.items()}
    found = []
    for batch, place in zip(micro_batches(chosen, 1, torch.device("cpu")), range(len(usable)), strict=True):
        frames, visible = chosen["frames"][place], chosen["visible"][place]
        made = reconstructions(recipe, module, batch, frozen)
        rows = [Row(*each) for each in _clip_rows(recipe, source, frames, visible, made)]
        video, start = int(chosen["video_id"][place]), int(chosen["start"][place])
        found.append(ShownClip(video, start, visible, rows, _flow_of_slots(recipe, source, frames)))
    return found


def _flow_of_slots(recipe: Recipe, source: MotionSource, frames: Image) -> NDArray[np.float32]:
    """Return the flow from each slot's first frame to the next one's."""
    step = recipe.grid.tubelet_frames
    pairs = [FramePair(start, start + step) for start in range(0, recipe.grid.num_frames - step, step)]
    flow: NDArray[np.float32] = source(frames[None], pairs)[0].cpu().numpy()
    return flow


def picture_of(clips: Sequence[ShownClip]) -> bytes:
    """Put clips below each other: a PNG file's bytes."""
    rows: list[Image] = []
    for clip in clips:
        rows += [row(each.images, each.name, each.note) for each in clip.rows]
        rows.append(np.full((MARGIN, rows[-1].shape[1], 3), 255, np.uint8))
    done, data = cv2.imencode(".png", cv2.cvtColor(np.concatenate(rows, 0), cv2.COLOR_RGB2BGR))
    assert done
    return data.tobytes()


def clips_of_run(recipe: Recipe, index_uri: str, module: nn.Module, step: int, clips: int) -> list[ShownClip]:
    """Show clips of a run's plan at a step: the ones that its trainers saw, or would see next.

    Returns:
        The clips; an empty list of a method without masks, and where not one decodes.
    """
    if recipe.record.labelled or not clips:
        return []
    slots = min(clips, recipe.slots_per_step)
    layout = StepLayout(recipe.slots_per_step, recipe.data.views, 1, slots, -(-recipe.slots_per_step // slots))
    spec = StreamSpec(recipe, index_uri, layout, step + 1)
    block = next(iter(local_blocks(spec, 0, step)))
    if not (block["weight"] > 0).any():
        return []
    return shown_clips(recipe, module, block, clips, frozen_networks(recipe))
