"""A past step again: its batch, rebuilt from the plan and the recorded substitutions, and compared with the record.

Nothing is decided anew. A slot that had a stand-in gets the same one; where it cannot be read now, its slot stays empty
and is named. The stages are those of the stream (data/stages.py).

B clips, V views a slot, N tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from system.core.identity import Words, clip_identities, equal_share, sampled_bits, total, with_content
from system.core.plan import StepLayout
from system.data.assemble import MAX_BLOCK_CLIPS, flow_device, limits_of, masker, masks_beside_decoding
from system.data.clips import ATTEMPTS, Choice
from system.data.columns import Batch
from system.data.decoders import build_of_decoders
from system.data.labelling import labeller
from system.data.masking import MaskStage
from system.data.notes import Note, unpack_notes
from system.data.stages import DecodeStage, ReadStage
from system.errors import CheckpointFault, RunError
from system.methods.base import Networks
from system.recipe import Recipe
from system.report.picture import MARGIN, Image, row, show_visible
from system.report.replayed import Replay, ReplayedClip
from system.train.batch import micro_batches
from system.train.checkpoint import Checkpoint, complete_steps, open_checkpoint
from system.train.judging import judge
from system.train.ledger import CLIPS, IDENTITY, MASKS, PIXELS, Segment
from system.train.past import Notes, Past
from system.train.recorder import mask_checksums
from system.train.session import frozen_networks, load_model


@dataclass(slots=True)
class _Rebuilt:
    """What is gathered of a step, block by block: its clips, their numbers in the step, and the worst ones' images."""

    clips: list[ReplayedClip] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    bits: Words = field(default_factory=lambda: np.zeros(4, np.uint64))
    shown: list[tuple[ReplayedClip, Image, NDArray[np.bool_]]] = field(default_factory=list)


def replay(
    past: Past,
    step: int,
    *,
    checkpoint: int | None = None,
    pictured: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Replay:
    """Rebuild a past step and compare it with its record.

    Args:
        past: of the run.
        step: which.
        checkpoint: whose weights the losses are computed with; default the newest kept one at or before the step, else
            the oldest after it.
        pictured: clips of the picture; default the recipe's.
        say: is told of checkpoints that are passed over.

    Raises:
        RunError: if the history does not reach the step, or there is no such checkpoint.
        CheckpointFault: if the ledger or every checkpoint is damaged.
        StorageFault: if storage does not answer.
    """
    segment, recipe = past.segment_of(step), past.recipe
    slots = range(step * recipe.slots_per_step, (step + 1) * recipe.slots_per_step)
    notes = {slot: passed for slot, passed in past.notes.items() if slot in slots}
    weights = weights_for(past.uri, step, checkpoint, say)
    module, frozen = load_model(recipe, weights), frozen_networks(recipe)
    device = _mask_device(recipe)
    rebuilt = _Rebuilt()
    for block in recorded_blocks(past, step, notes, device):
        losses = clip_losses(recipe, module, block, frozen)
        _take(past, rebuilt, block, losses, notes, step)
        rebuilt.shown.sort(key=lambda each: -(each[0].loss or 0.0))
        del rebuilt.shown[recipe.telemetry.picture_clips if pictured is None else pictured :]
    return _compared(past, segment, step, rebuilt, weights.step, device)


def _mask_device(recipe: Recipe) -> str:
    return "cuda" if flow_device(recipe) == "cuda" and torch.cuda.is_available() else "cpu"


def recorded_blocks(past: Past, step: int, notes: Notes, device: str) -> Iterator[Batch]:
    """Yield the blocks of a step with the recorded substitutions.

    Args:
        past: of the run.
        step: which.
        notes: why videos did not stand in the slots of the step.
        device: for masks that a network makes.
    """
    recipe, maker = past.recipe, past.maker

    def recorded(slot: int) -> tuple[Choice | None, list[Note]]:
        passed = notes.get(slot, [])
        return (maker.choose(slot, len(passed)) if len(passed) <= ATTEMPTS else None), list(passed)

    per_step, views = recipe.slots_per_step, recipe.data.views
    unit = recipe.slots_together
    per_block = min(per_step, unit * max(1, MAX_BLOCK_CLIPS // (views * unit)))
    layout = StepLayout(per_step, views, 1, per_block, -(-per_step // per_block))
    beside = masks_beside_decoding(recipe)
    read = ReadStage(maker, layout, {}, recorded)
    own, labels = masker(recipe) if beside else None, labeller(recipe)
    decode = DecodeStage(maker, limits_of(recipe), own, {}, spares=False, labeller=labels)
    mask = None if beside else MaskStage(maker, masker(recipe, device))
    first = layout.first_block(step)
    try:
        for number in range(first, first + layout.blocks_per_step):
            with _as_in_an_actor():
                clips = decode(read({"block": np.array([number])}))
                clips = mask(clips) if mask is not None else clips
            yield {name: values[clips["slot"] >= 0] for name, values in clips.items()}
    finally:
        decode.close()


@contextmanager
def _as_in_an_actor() -> Iterator[None]:
    """Compute with one thread, as a decode actor does: sums over several differ in their last bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def weights_for(run_uri: str, step: int, wanted: int | None, say: Callable[[str], None]) -> Checkpoint:
    """Open the checkpoint whose weights are nearest to those that a step met.

    Raises:
        RunError: if the one that is wanted is not there.
        CheckpointFault: if none is whole.
    """
    there = complete_steps(run_uri)
    if wanted is not None:
        if wanted not in there:
            raise RunError(f"{run_uri} has checkpoints of the steps {there}, --checkpoint {wanted} is none of them")
        return open_checkpoint(run_uri, wanted)
    for each in [*sorted((each for each in there if each <= step), reverse=True), *(e for e in there if e > step)]:
        try:
            return open_checkpoint(run_uri, each)
        except CheckpointFault as error:
            say(f"checkpoint {each} is passed over: {error}")
    raise CheckpointFault(f"{run_uri}: none of its {len(there)} checkpoints is whole")


@torch.inference_mode()
def clip_losses(recipe: Recipe, module: nn.Module, block: Batch, frozen: Networks) -> NDArray[np.float64]:
    """Return each clip's loss, float32 arithmetic on the CPU: (B,), nan for those of weight 0."""
    losses = np.full(len(block["slot"]), np.nan)
    real = block["weight"] > 0
    if real.any():
        rows = {name: values[real] for name, values in block.items()}
        cpu = torch.device("cpu")
        judged = [judge(recipe, module, batch, frozen) for batch in micro_batches(rows, recipe.train.micro_batch, cpu)]
        losses[real] = torch.cat([torch.stack(list(each.losses.values())).sum(0) for each in judged]).numpy()
    return losses


def _take(past: Past, rebuilt: _Rebuilt, block: Batch, losses: NDArray[np.float64], notes: Notes, step: int) -> None:
    """Add a block's clips to what is rebuilt."""
    recipe, real = past.recipe, block["weight"] > 0
    views, num_clips = recipe.data.views, recipe.slots_per_step * recipe.data.views
    numbers = (block["slot"] - step * recipe.slots_per_step) * views + block["view"]
    rebuilt.numbers += numbers[real].tolist()
    rebuilt.bits += sampled_bits(step, num_clips, numbers[real], block["visible"][real])
    masks = mask_checksums(block, np.ones(len(real), np.bool_))
    for place in range(len(real)):
        slot, view = int(block["slot"][place]), int(block["view"][place])
        attempt = len(notes.get(slot, []))
        if attempt > ATTEMPTS:
            rebuilt.clips.append(ReplayedClip(slot, view, "none, skipped", 0, attempt, 0.0, None, 0, 0, 0))
            continue
        choice = past.maker.choose(slot, attempt)
        who = (slot, choice.video.video_id, view, choice.start)
        if real[place]:
            who = (slot, int(block["video_id"][place]), view, int(block["start"][place]))
        clip = ReplayedClip(
            slot,
            view,
            past.maker.index.row(who[1]).name,
            who[3],
            attempt,
            float(block["weight"][place]),
            float(losses[place]) if real[place] else None,
            int(clip_identities(*(np.array([each]) for each in who))[0]),
            int(block["pixels"][place]),
            int(masks[place]),
            "" if real[place] else _why_gone(block, place - view),
        )
        rebuilt.clips.append(clip)
        if real[place]:
            rebuilt.shown.append((clip, block["frames"][place], block["visible"][place]))


def _why_gone(block: Batch, first_view: int) -> str:
    note = unpack_notes(block["notes"][first_view])[-1]
    return f"{note.reason} ({note.code})"


def _compared(past: Past, segment: Segment, step: int, rebuilt: _Rebuilt, weights_step: int, device: str) -> Replay:
    recipe, record = past.recipe, segment.record(step)
    stood = [clip for clip in rebuilt.clips if clip.identity]
    there = [clip for clip in stood if clip.weight]
    identities = np.array([clip.identity for clip in there], np.uint64)
    sums = {
        PIXELS: total(with_content(identities, np.array([clip.pixels for clip in there], np.int64))),
        MASKS: total(with_content(identities, np.array([clip.mask for clip in there], np.int64))),
    }
    whole = len(there) == len(stood)
    same = int(record[CLIPS]) == len(stood)
    same &= int(record[IDENTITY]) == total(np.array([clip.identity for clip in stood], np.uint64))
    masks = whole and int(record[MASKS]) == sums[MASKS]
    network = not masks_beside_decoding(recipe)
    share = None
    if network and not masks and len(record) > MASKS + 1:
        num_clips = recipe.slots_per_step * recipe.data.views
        kept = np.array(rebuilt.numbers, np.int64)
        share = equal_share(record[MASKS + 1 :], rebuilt.bits, step, num_clips, kept, recipe.grid.tokens)
    return Replay(
        step,
        tuple(rebuilt.clips),
        same,
        whole and int(record[PIXELS]) == sums[PIXELS],
        masks,
        share,
        network,
        (segment.made.decoders, build_of_decoders(augmented=recipe.record.labelled)),
        (segment.made.mask_device, device if network else ""),
        segment.not_trained.get(step, ""),
        weights_step,
        _picture(recipe, rebuilt),
    )


def _picture(recipe: Recipe, rebuilt: _Rebuilt) -> bytes | None:
    """Draw the clips with the largest losses: their frames, and what the encoder saw of them."""
    grid = recipe.grid
    starts = range(0, grid.num_frames, grid.tubelet_frames)
    rows: list[Image] = []
    for clip, frames, visible in rebuilt.shown:
        seen = show_visible(frames, visible, grid)
        rows.append(
            row([frames[start] for start in starts], f"slot {clip.slot} view {clip.view}", f"loss {clip.loss:.4f}")
        )
        rows.append(row([seen[start] for start in starts], clip.video[-24:], f"from frame {clip.start}"))
        rows.append(np.full((MARGIN, rows[-1].shape[1], 3), 255, np.uint8))
    if not rows:
        return None
    done, data = cv2.imencode(".png", cv2.cvtColor(np.concatenate(rows, 0), cv2.COLOR_RGB2BGR))
    assert done
    return data.tobytes()
