"""Semi-supervised video object segmentation of one sequence by a frozen encoder, and its scores.

The mask of the first frame is given, those of the others are found (propagation.py), and all but the first and the last
are scored (mask_scores.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from system.data.davis import VideoSequence, read_frame, read_mask
from system.evaluate.dense_features import Dense, DenseEncoder, middle_slot
from system.evaluate.encoders import Frozen
from system.evaluate.mask_scores import ObjectScores, frame_scores, object_scores, summary
from system.evaluate.propagation import Propagation, carried, first_labels, mask_of, true_shares

Mask = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Switches:
    """The protocol. Defaults are those of DINO's public evaluation, with a frame repeated to fill a tubelet.

    Attributes:
        dense: features of a frame.
        carry: how labels are carried.
        short_px: the shorter side of a frame is resized to this.
        multiple_px: the longer one to the multiple of this below what keeps the proportions.
    """

    dense: Dense = field(default_factory=Dense)
    carry: Propagation = field(default_factory=Propagation)
    short_px: int = 480
    multiple_px: int = 64


def working_size(height: int, width: int, short_px: int, multiple_px: int) -> tuple[int, int]:
    """Return the height and width that a frame is resized to, px."""
    long_px = max(multiple_px, short_px * max(height, width) // min(height, width) // multiple_px * multiple_px)
    return (long_px, short_px) if height > width else (short_px, long_px)


def check_switches(switches: Switches, frozen: Frozen) -> list[str]:
    """Return what of the switches does not go with an encoder, a sentence each."""
    patch, dense, depth = frozen.grid.patch_px, switches.dense, len(frozen.encoder.blocks)
    wrong = []
    if switches.short_px % patch or switches.multiple_px % patch:
        wrong.append(
            f"sides are multiples of the patch, {patch} px, got --short-side {switches.short_px} and --multiple"
            f" {switches.multiple_px}; use {max(1, round(switches.short_px / patch)) * patch} and"
            f" {-(-switches.multiple_px // patch) * patch}"
        )
    if not 0 <= dense.layer <= depth:
        wrong.append(f"--layer is 1 to {depth}, or 0 for the last, got {dense.layer}")
    if dense.norm and not frozen.has_norm:
        wrong.append("the weights have no encoder.norm, as of a fine-tuned model; give --no-norm")
    return wrong


def find_masks(sequence: VideoSequence, frozen: Frozen, switches: Switches) -> list[Mask]:
    """Find the masks of all frames from that of the first: (H, W) uint8 each, the first as it was given.

    Raises:
        DataError: if a file cannot be decoded.
        StorageFault: if storage does not answer.
    """
    size = working_size(sequence.height, sequence.width, switches.short_px, switches.multiple_px)
    patch = frozen.grid.patch_px
    rows_cols = (size[0] // patch, size[1] // patch)
    dense = DenseEncoder(frozen.encoder, frozen.grid, rows_cols, switches.dense)

    def read(number: int) -> Mask:
        frame = read_frame(sequence.frames[number])
        return np.asarray(cv2.resize(frame, (size[1], size[0]), interpolation=cv2.INTER_LINEAR), np.uint8)

    given = read_mask(sequence.masks[0])
    first = first_labels(given, sequence.objects, rows_cols).to(dense.positions.device)
    whole = (sequence.height, sequence.width)
    with torch.inference_mode():
        labels = carried(dense.of_video(read, len(sequence.frames)), first, rows_cols, switches.carry)
        return [given, *(mask_of(each, sequence.objects, rows_cols, patch, whole) for each in labels)]


def without_a_place(sequence: VideoSequence, patch_px: int, switches: Switches) -> list[int]:
    """Return the objects that are too small to own a place of the first frame: they cannot be followed."""
    height, width = working_size(sequence.height, sequence.width, switches.short_px, switches.multiple_px)
    labels = first_labels(read_mask(sequence.masks[0]), sequence.objects, (height // patch_px, width // patch_px))
    return [number for number, share in zip(sequence.objects, labels[:, 1:].sum(0).tolist(), strict=True) if not share]


def still_masks(sequence: VideoSequence) -> Iterable[Mask]:
    """Yield the first mask for every frame: what is scored where nothing is followed."""
    given = read_mask(sequence.masks[0])
    return (given for _ in sequence.masks)


def gridded_masks(sequence: VideoSequence, patch_px: int, switches: Switches) -> Iterable[Mask]:
    """Yield masks made of the true share of every label in every place: about the best that places allow."""
    height, width = working_size(sequence.height, sequence.width, switches.short_px, switches.multiple_px)
    rows_cols = (height // patch_px, width // patch_px)
    for uri in sequence.masks:
        labels = true_shares(read_mask(uri), sequence.objects, rows_cols)
        yield mask_of(labels, sequence.objects, rows_cols, patch_px, (sequence.height, sequence.width))


def score(sequence: VideoSequence, masks: Iterable[Mask]) -> list[ObjectScores]:
    """Score the masks of a sequence, all frames' in order; the first and the last one do not count.

    Returns:
        One for each of the sequence's objects.
    """
    last = len(sequence.masks) - 1
    frames = [
        frame_scores(read_mask(uri), found, sequence.objects)
        for number, (uri, found) in enumerate(zip(sequence.masks, masks, strict=True))
        if 0 < number < last
    ]
    return object_scores(frames)


def sequence_values(
    sequence: VideoSequence, scores: Sequence[ObjectScores], switches: Switches, patch_px: int
) -> dict[str, Any]:
    """Return a sequence's figures as plain values."""
    return {
        "frames": len(sequence.frames),
        "scored_frames": len(sequence.frames) - 2,
        "size_px": [sequence.height, sequence.width],
        "resized_px": list(working_size(sequence.height, sequence.width, switches.short_px, switches.multiple_px)),
        "objects_without_a_patch": without_a_place(sequence, patch_px, switches),
        **summary(scores),
        "objects": {str(number): summary([each]) for number, each in zip(sequence.objects, scores, strict=True)},
    }


def switches_values(switches: Switches, frozen: Frozen) -> dict[str, Any]:
    """Return every choice of the protocol as plain values, those included that no switch changes."""
    grid, dense = frozen.grid, asdict(switches.dense)
    dense["layer"] = dense["layer"] or len(frozen.encoder.blocks)
    sliding = dense["tubelet"] == "sliding"
    clip = f"{grid.num_frames} frames, the frame begins slot {middle_slot(grid)}, ends of the video are repeated"
    return {
        "short_px": switches.short_px,
        "multiple_px": switches.multiple_px,
        **dense,
        **asdict(switches.carry),
        "frame_resize": "bilinear (OpenCV), values in [0, 1], normalised with ImageNet's statistics",
        "clip": clip if sliding else f"the frame {grid.tubelet_frames} times, one slot, positions of slot 0",
        "positions": f"the trained {grid.rows} x {grid.cols} table of each slot, resized bicubically",
        "features": "float32 of length 1; cosine similarity",
        "context_frames": "the first frame (its mask is given) and the last ones before the present",
        "ties": "sources as like as the last of the top k are kept too",
        "first_mask": "label of the pixel in the middle of each patch",
        "mask": "shares resized bilinearly, each label's stretched to 0..1, argmax, nearest to the frame's size",
        "scored": "first frame's objects, without the first and the last frame; void (255) is background",
    }


def progress_line(number: int, count: int, sequence: VideoSequence, figures: dict[str, Any], seconds: float) -> str:
    """Say how a sequence went."""
    return (
        f"{number}/{count} {sequence.name}: {len(sequence.frames)} frames, {len(sequence.objects)} objects,"
        f" J&F {100 * figures['J&F-Mean']:.1f}, J {100 * figures['J-Mean']:.1f}, F {100 * figures['F-Mean']:.1f}"
        f" ({seconds:.1f} s)"
    )
