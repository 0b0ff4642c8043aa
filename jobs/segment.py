"""Follow objects through videos with a frozen encoder: `python -m jobs.segment --davis FOLDER --run RUN --out FOLDER`.

Semi-supervised video object segmentation on DAVIS-2017's layout: the mask of the first frame is given, the others are
found by label propagation and scored (J, F and J&F). Nothing is trained. docs/segmentation.md: the protocol and its
switches. `python -m jobs.make_videos --masks --out FOLDER` generates sequences to try it on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

import torch

from jobs.cli import Parser, count, duration, parser, run, say
from jobs.features import add_encoder, check_encoder, chosen_encoder
from system import storage
from system.benchmark.machine import describe
from system.data.davis import VideoSequence, open_davis, read_frame, read_mask
from system.data.indexed_png import object_colours, write_numbers
from system.errors import RecipeError, RunError
from system.evaluate.dense_features import Dense
from system.evaluate.encoders import Frozen, load
from system.evaluate.mask_scores import ObjectScores, summary
from system.evaluate.propagation import Propagation
from system.evaluate.segmentation import (
    Mask,
    Switches,
    check_switches,
    find_masks,
    gridded_masks,
    progress_line,
    score,
    sequence_values,
    still_masks,
    switches_values,
)
from system.report.mask_picture import mask_picture, shown_frames

RESULTS = "results.json"


def main(arguments: Sequence[str]) -> int:
    """Run the job."""
    given = _options().parse_intermixed_args(arguments)
    check_encoder(given)
    switches, out = _switches(given), storage.absolute(given.out)
    if storage.exists(storage.join(out, RESULTS)):
        raise RunError(f"{out} holds a {RESULTS} already; name another --out, or delete it")
    only = [name for name in given.sequences.split(",") if name]
    sequences = open_davis(storage.absolute(given.davis), given.set, given.resolution, only)
    frozen = load(chosen_encoder(given))
    wrong = check_switches(switches, frozen)
    if wrong:
        raise RecipeError("; ".join(wrong))
    storage.check_writable(storage.join(out, RESULTS))
    frozen.encoder.to(_device(given.device))
    say(f"{len(sequences)} sequences, {sum(len(each.frames) for each in sequences)} frames: {out}")
    _write(given, out, _segment(given, sequences, frozen, switches, out))
    return 0


def _options() -> Parser:
    options = parser("segment", "Follow the objects of a first frame through videos, with a frozen encoder.")
    options.add_argument("--davis", required=True, help="folder or s3:// prefix in DAVIS-2017's layout")
    options.add_argument("--set", default="val", help="list of sequences below ImageSets/2017, without .txt")
    options.add_argument("--resolution", default="480p", help="folder below JPEGImages and Annotations")
    options.add_argument("--sequences", default="", help="names with commas between them; default all of the list")
    add_encoder(options)
    options.add_argument("--untrained", action="store_true", help="the run's model as it was drawn, for comparison")
    options.add_argument("--out", required=True, help="folder or s3:// prefix of results.json, masks and pictures")
    _protocol_options(options)
    options.add_argument("--device", default="auto", help="cpu, cuda, cuda:1; default: cuda where there is one")
    options.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="of the encoder")
    options.add_argument("--batch", type=count, default=4, help="frames of one forward")
    options.add_argument("--pictures", type=int, default=6, help="frames on each sequence's picture; 0: no pictures")
    options.add_argument("--references", action="store_true", help="score two others: first mask kept, true shares")
    return options


def _protocol_options(options: Parser) -> None:
    dense, carry, whole = Dense(), Propagation(), Switches()
    options.add_argument("--layer", type=int, default=dense.layer, help="block whose output is taken; 0: the last")
    options.add_argument("--no-norm", action="store_true", help="without the encoder's last LayerNorm")
    options.add_argument("--tubelet", choices=("duplicate", "sliding"), default=dense.tubelet)
    options.add_argument("--clip-stride", type=count, default=dense.clip_stride, help="of a sliding clip, frames")
    options.add_argument("--context", type=int, default=carry.context, help="frames before the present, and the first")
    options.add_argument("--window", type=int, default=carry.window, help="patches to every side; 0: anywhere")
    options.add_argument("--top-k", type=count, default=carry.top_k, help="sources of a patch")
    options.add_argument("--temperature", type=float, default=carry.temperature)
    options.add_argument("--queue", choices=("soft", "hard"), default=carry.queue, help="labels that are passed on")
    options.add_argument("--short-side", type=count, default=whole.short_px, help="of the resized frames, px")
    options.add_argument("--multiple", type=count, default=whole.multiple_px, help="the long side is one of this, px")


def _switches(given: Any) -> Switches:
    if not given.temperature > 0 or min(given.context, given.window) < 0:
        raise RecipeError(
            "--temperature is above 0, --context and --window are 0 or more; got"
            f" {given.temperature:g}, {given.context} and {given.window}"
        )
    return Switches(
        Dense(
            given.tubelet,
            given.clip_stride,
            given.layer,
            not given.no_norm,
            given.precision == "bf16",
            given.batch,
        ),
        Propagation(given.context, given.window, given.top_k, given.temperature, given.queue),
        given.short_side,
        given.multiple,
    )


def _device(name: str) -> torch.device:
    there = torch.cuda.is_available()
    try:
        device = torch.device(("cuda" if there else "cpu") if name == "auto" else name)
    except RuntimeError as error:
        raise RecipeError(f"--device is cpu, cuda or cuda:N, got {name}") from error
    if device.type == "cuda" and not there:
        raise RecipeError(f"--device {name}: PyTorch sees no GPU here; use --device cpu")
    return device


def _segment(
    given: Any, sequences: Sequence[VideoSequence], frozen: Frozen, switches: Switches, out: str
) -> dict[str, Any]:
    """Follow and score every sequence; return the results as plain values."""
    began = time.monotonic()
    values: dict[str, Any] = {}
    scores: list[ObjectScores] = []
    references: dict[str, list[ObjectScores]] = {"still": [], "patches": []} if given.references else {}
    for number, sequence in enumerate(sequences, 1):
        start = time.monotonic()
        masks = find_masks(sequence, frozen, switches)
        mine = score(sequence, masks)
        figures = sequence_values(sequence, mine, switches, frozen.grid.patch_px)
        scores += mine
        if given.references:
            references["still"] += score(sequence, still_masks(sequence))
            references["patches"] += score(sequence, gridded_masks(sequence, frozen.grid.patch_px, switches))
        _keep(given.pictures, sequence, masks, figures, out)
        values[sequence.name] = {**figures, "seconds": round(time.monotonic() - start, 3)}
        say(progress_line(number, len(sequences), sequence, figures, time.monotonic() - start))
    return {
        "means": summary(scores),
        "objects": len(scores),
        "references": {name: summary(each) for name, each in references.items()},
        "sequences": values,
        "encoder": dict(frozen.said),
        "switches": switches_values(switches, frozen),
        "seconds": round(time.monotonic() - began, 3),
    }


def _keep(pictures: int, sequence: VideoSequence, masks: Sequence[Mask], figures: dict[str, Any], out: str) -> None:
    """Write the masks of a sequence as the public evaluation reads them, and its picture."""
    colours = object_colours()
    for uri, mask in zip(sequence.masks, masks, strict=True):
        storage.write(storage.join(out, "masks", sequence.name, uri.rsplit("/", 1)[-1]), write_numbers(mask, colours))
    if pictures:
        shown = shown_frames(len(masks), pictures)
        frames = [read_frame(sequence.frames[number]) for number in shown]
        truths = [read_mask(sequence.masks[number]) for number in shown]
        text = f"{sequence.name}, J&F {100 * figures['J&F-Mean']:.1f}"
        picture = mask_picture(frames, truths, [masks[number] for number in shown], text)
        storage.write(storage.join(out, "pictures", f"{sequence.name}.png"), picture)


def _write(given: Any, out: str, results: dict[str, Any]) -> None:
    """Write the results, and say the means."""
    told = {
        "job": "segment",
        "data": {"uri": storage.absolute(given.davis), "set": given.set, "resolution": given.resolution},
        "machine": describe(),
        "device": str(_device(given.device)),
    }
    storage.write(storage.join(out, RESULTS), json.dumps({**told, **results}, indent=1).encode())
    rows = {"found": results["means"], **results["references"]}
    for name, figures in rows.items():
        cells = "  ".join(f"{measure} {100 * figures[measure]:.1f}" for measure in figures)
        say(f"{name:>8}: {cells}")
    lost = sum(len(each["objects_without_a_patch"]) for each in results["sequences"].values())
    if lost:
        say(f"{lost} of {results['objects']} objects own no patch of their first frame and could not be followed")
    say(f"{results['objects']} objects in {duration(results['seconds'])}: {storage.join(out, RESULTS)}")


if __name__ == "__main__":
    run(main)
