"""Measure what one executor of a stream sustains, and reckon how GPUs are fed: `python -m jobs.scale_probe`.

    python -m jobs.scale_probe --ranks 1 8 --actors 8 --task-ms 0 100 --block-mb 0.5 8
    python -m jobs.scale_probe --gpus 8,64,512,4096 [assumption=value ...]

The first runs streams whose decoding sleeps; the second is arithmetic and runs nothing. docs/scale.md has both.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

from jobs.cli import amount, count, parser, positive, run, say
from system.benchmark.feeding import Assumed, feed, feeding_table
from system.benchmark.stages import Asked
from system.errors import RecipeError

SECONDS = 20.0


def main(arguments: Sequence[str]) -> int:
    """Run the job."""
    options = parser("scale_probe", "Blocks a second that one executor sustains; or, with --gpus, how GPUs are fed.")
    options.add_argument("--gpus", metavar="N,N,...", help="print how so many GPUs are fed, and measure nothing")
    options.add_argument("assumed", nargs="*", metavar="assumption=value", help="with --gpus, such as views=4")
    options.add_argument("--ranks", nargs="+", type=count, default=[1, 8], help="that the stream serves")
    options.add_argument("--actors", nargs="+", type=count, default=[8], help="decode actors, which sleep")
    options.add_argument("--task-ms", nargs="+", type=amount, default=[50.0], help="that a block takes in one of them")
    options.add_argument(
        "--block-mb", nargs="+", type=positive, default=[0.5], help="of a block; one of 32 clips has 77"
    )
    options.add_argument("--seconds", type=positive, default=SECONDS, help="that each is timed for")
    options.add_argument("--short", action="store_true", help="as little as shows that it runs; figures mean nothing")
    options.add_argument("--json", metavar="FILE", help="write the figures there")
    given = options.parse_intermixed_args(arguments)
    if given.gpus is None and given.assumed:
        raise RecipeError(f"{' '.join(given.assumed)}: assumptions are for --gpus; use --gpus 8,64,512,4096")
    told = _fed(given.gpus, given.assumed) if given.gpus is not None else _measured(given)
    if given.json:
        Path(given.json).write_text(json.dumps(told, indent=1) + "\n")
    return 0


def _fed(gpus: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Print how GPUs are fed; return it with what is assumed."""
    assumed = assumptions(overrides)
    found = [feed(number, assumed) for number in numbers(gpus)]
    say("assumed: " + ", ".join(f"{name}={value:g}" for name, value in asdict(assumed).items()))
    say(feeding_table(found))
    return {"assumed": asdict(assumed), "feeds": [asdict(each) for each in found]}


def numbers(text: str) -> list[int]:
    """Return the numbers of `8,64,512`.

    Raises:
        RecipeError: if they are none, or not above 0.
    """
    parts = text.split(",")
    if not all(part.strip().isdigit() and int(part) > 0 for part in parts):
        raise RecipeError(f"--gpus takes numbers of GPUs from 1 on, got {text}; use --gpus 8,64,512,4096")
    return [int(part) for part in parts]


def assumptions(overrides: Sequence[str]) -> Assumed:
    """Return what is assumed, with overrides such as `views=4`.

    Raises:
        RecipeError: if there is no such assumption, or its value is not a number above 0.
    """
    known = {name: type(value) for name, value in asdict(Assumed()).items()}
    values: dict[str, Any] = {}
    for override in overrides:
        name, _, value = override.partition("=")
        if name not in known:
            raise RecipeError(f"{override}: there is no such assumption; there are {', '.join(known)}")
        try:
            values[name] = known[name](value)
        except ValueError:
            raise RecipeError(f"{override}: {name} is a number, got {value!r}; use {name}=1") from None
        if not (math.isfinite(values[name]) and values[name] > 0):
            raise RecipeError(f"{override}: {name} has to be above 0, and finite; use {name}=1")
    return Assumed(**values)


def _measured(given: Any) -> dict[str, Any]:
    """Run a stream for each load, and print what was seen; return it with the machine."""
    # Ray is imported where it is used: arithmetic is for laptops as well.
    from system.benchmark.machine import describe, told  # noqa: PLC0415
    from system.benchmark.streaming import session  # noqa: PLC0415
    from system.benchmark.sustained import Load, store_for, sustain, sustained_table  # noqa: PLC0415

    loads = [
        Load(ranks, actors, task_ms / 1e3, block_mb)
        for block_mb, actors, ranks, task_ms in product(given.block_mb, given.actors, given.ranks, given.task_ms)
    ]
    machine = describe()
    say(told(machine))
    found = []
    with tempfile.TemporaryDirectory(prefix="tubelet-scale-") as scratch:
        asked = Asked("synthetic", scratch, "cpu", given.short, say)
        store = max(store_for(load, asked) for load in loads)
        with session(cpus=max(given.actors) + 4, store_bytes=store):
            for load in loads:
                found.append(sustain(load, given.seconds, asked))
                say(sustained_table(found).splitlines()[-1] if len(found) > 1 else sustained_table(found))
    say(sustained_table(found))
    best = max(found, key=lambda each: each.blocks_s)
    say(f"at most {best.blocks_s:.1f} blocks/s were seen; see docs/scale.md for what follows")
    return {"machine": machine, "found": [each.plain() for each in found]}


if __name__ == "__main__":
    run(main)
