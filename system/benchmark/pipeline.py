"""Stage `pipeline`: the stream of clips from the index to a tensor on the device, through Ray Data.

The limit is the same stages in plain processes, without Ray, on the same cores.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from system.benchmark.large_index import write_repeated
from system.benchmark.line import Line, Target
from system.benchmark.machine import cores
from system.benchmark.plain import plain
from system.benchmark.recipes import small_recipe, stream_of
from system.benchmark.stages import Asked
from system.benchmark.stand_in import Pace, stand_ins
from system.benchmark.streaming import Stream, opened, session, spilled_bytes
from system.benchmark.timing import Measured, Stopwatch, interleaved
from system.data.assemble import Makers, StreamSpec, clip_bytes, lookahead
from system.data.dataset import ensure_index
from system.recipe import Recipe

STAGE = "pipeline"
# Length of what is timed in one turn of a contender, seconds.
TURN_S = 8.0
# Clips that take longer, and how many times.
SLOW_SHARE, SLOW_TIMES = 0.01, 20.0
# The stand-in decoders of the comparison of orders: they sleep, so there may be more of them than cores.
SLEEPERS, SLEEP_S = 4, 0.012
# Rows of the long index.
MANY_VIDEOS = 10_000_000


def measure(asked: Asked) -> Sequence[Line]:
    """Measure the stage."""
    recipe = small_recipe(asked, data=_short(asked), train=_short_train(asked))
    ensure_index(recipe)
    with session(cpus=4 * cores() + 2 * SLEEPERS, store_bytes=_store(recipe, asked)):
        rate, first_s = _rates(recipe, asked)
        lines = [rate, *_bare(recipe, asked), *_orders(asked), *_first_batches(recipe, asked, first_s)]
        spilled = spilled_bytes() / 2**20
    says = "written from the object store to disk during all of this stage"
    return [*lines, Line(STAGE, "spilled", "MiB", spilled, targets=(Target("at_most", 0.0),), more=False, says=says)]


def _short(asked: Asked) -> dict[str, int]:
    return {"num_frames": 4, "size": 64, "clips_per_block": 4} if asked.short else {}


def _short_train(asked: Asked) -> dict[str, int]:
    return {"global_batch": 4} if asked.short else {}


def _store(recipe: Recipe, asked: Asked) -> int:
    """Return the bytes of an object store that holds what a stream of the recipe may hold, twice."""
    block = recipe.train.global_batch * clip_bytes(recipe)
    return 200_000_000 if asked.short else max(200_000_000, 16 * 3 * cores() * block)


def _rates(recipe: Recipe, asked: Asked) -> tuple[Line, float]:
    """The stream with its own stages, against plain processes with the same; and the seconds to its first block."""
    spec = stream_of(recipe)
    found, count, first_s = _against_plain(spec, asked)
    says = (
        f"one rank, blocks of {spec.layout.clips_per_block} clips, {cores()} decode actors; limit: the same read and"
        f" decode stages in {cores()} plain processes that drop their blocks; {count} blocks a turn, timed while all of"
        " them work"
    )
    return _rate("index to device tensor", found["stream"], found["plain"], says), first_s


def _rate(name: str, ours: Measured, limit: Measured, says: str) -> Line:
    target = (Target("share", 0.95),)
    repeats = len(ours.rates)
    return Line(STAGE, name, "clips/s", ours.median, None, limit.median, target, True, repeats, ours.spread, says)


def _against_plain(spec: StreamSpec, asked: Asked) -> tuple[dict[str, Measured], int, float]:
    """Return the rates of a stream and of plain processes, the blocks of a turn, the seconds to the first block."""
    watch, workers = Stopwatch(), cores()
    with opened(spec) as stream:
        stream.device = torch.device(asked.device)
        stream.take()
        with plain(spec, Makers(), workers) as processes:
            skipped = 2 if asked.short else lookahead(spec) + workers
            count = workers if asked.short else _blocks_of_a_turn(stream, skipped, workers)
            stream.rest()
            contenders = {
                "stream": partial(stream.make, skipped, count, watch),
                "plain": partial(processes.make, workers, count, watch),
            }
            found = interleaved(contenders, asked.repeats, warm=0 if asked.short else 1, clock=watch)
    return found, count, stream.first_s


def _blocks_of_a_turn(stream: Stream, skipped: int, workers: int) -> int:
    """Return how many blocks fill a turn: a multiple of the workers, who make as many each."""
    watch = Stopwatch()
    stream.make(skipped, 2 * workers, watch)
    return workers * max(2, min(64, round(TURN_S * 2 / watch())))


def _bare(recipe: Recipe, asked: Asked) -> list[Line]:
    """The stream with stand-ins for its stages: what Ray costs for each block."""
    spec, makers = stream_of(recipe), stand_ins()
    watch, count = Stopwatch(), 4 if asked.short else 40
    block = spec.layout.clips_per_block * clip_bytes(recipe)
    with opened(spec, makers) as stream:
        stream.take()
        contenders = {"stream": partial(stream.make, lookahead(spec), count, watch)}
        made = interleaved(contenders, asked.repeats, warm=0 if asked.short else 1, clock=watch)
    per_s = made["stream"].median / spec.layout.clips_per_block
    says = (
        f"frames lie ready and are passed on, {block / 1e6:.0f} MB a block, one copy into the store and one out of it"
    )
    line = partial(Line, STAGE, more=False, repeats=asked.repeats, spread=made["stream"].spread, says=says)
    return [
        line("a block without work", "ms", 1e3 / per_s),
        line("a block without work, throughput", "GB/s", per_s * block / 1e9, more=True),
    ]


def _orders(asked: Asked) -> list[Line]:
    """Exact order against any order, where few clips take much longer."""
    small = {"size": 64, "num_frames": 4}
    clips = 4 if asked.short else small_recipe(asked).train.global_batch
    recipe = small_recipe(
        asked,
        data={**small, "clips_per_block": clips},
        train={"global_batch": clips},
        resources={"decode_actors": 2 if asked.short else SLEEPERS, "use_gpu": False},
    )
    pace = Pace(SLEEP_S, SLOW_SHARE, SLOW_TIMES)
    spec, watch = stream_of(recipe), Stopwatch()
    count = 4 if asked.short else round(2 * TURN_S / (clips * SLEEP_S) * SLEEPERS)
    with opened(spec, stand_ins(pace)) as exact, opened(spec, stand_ins(pace), exact=False) as free:
        both = {"exact": exact, "free": free}
        contenders = {name: partial(each.make, lookahead(spec), count, watch) for name, each in both.items()}
        found = interleaved(contenders, 1 if asked.short else 3, warm=0 if asked.short else 1, clock=watch)
    ahead = lookahead(spec)
    held = ahead * clips * clip_bytes(small_recipe(asked)) / 1e6
    says = (
        f"{SLOW_SHARE:.0%} of the clips take {SLOW_TIMES:.0f} times as long; {SLEEPERS} stand-in decoders that sleep"
        f" {1e3 * SLEEP_S:.0f} ms a clip, blocks of {clips} clips; limit: the same in any order; look-ahead {ahead}"
        f" blocks, the default, {held:.0f} MB of 16 x 224 x 224"
    )
    return [
        _rate("exact order", found["exact"], found["free"], says),
        Line(STAGE, "look-ahead of exact order", "MB", held, more=False, says=f"{ahead} blocks of {clips} clips"),
    ]


def _first_batches(recipe: Recipe, asked: Asked, first_s: float) -> list[Line]:
    """From a stream that is not there to its first block; Ray runs and has run a stream before.

    In the short form the warm one is what another measurement has seen, `first_s`.
    """
    spec = stream_of(recipe)
    begun = time.perf_counter()
    many = 100_000 if asked.short else MANY_VIDEOS
    asked.say(f"writing an index of {many} videos")
    path = Path(asked.scratch) / "many.parquet"
    write_repeated(path, many, spec.index_uri)
    asked.say(f"wrote it in {time.perf_counter() - begun:.0f} s")
    long = StreamSpec(recipe, str(path), spec.layout, spec.last_step)
    warm, of_many = "first batch, warm", f"first batch of {many} videos"
    found: dict[str, list[float]] = {warm: [first_s] if asked.short else [], of_many: []}
    for name, each in ((of_many, long),) if asked.short else 3 * ((warm, spec), (of_many, long)):
        with opened(each) as stream:
            stream.take()
            found[name].append(stream.first_s)
            stream.rest()
    bounds = dict(zip(found, (10.0, 8.0), strict=True))
    says = f"from opening a stream to its first block of {spec.layout.clips_per_block} clips; actors start in that time"
    return [
        Line(
            STAGE,
            name,
            "s",
            sorted(seconds)[len(seconds) // 2],
            targets=(Target("at_most", bounds[name]),),
            more=False,
            repeats=len(seconds),
            spread=(max(seconds) - min(seconds)) / sorted(seconds)[len(seconds) // 2],
            says=says,
        )
        for name, seconds in found.items()
    ]
