"""Stage `loop`: what the training loop's time goes into besides training, from a stream that is faster than it.

One rank trains in this process from a stream through Ray, with everything that a worker does: the clock is told of
every block and step, a watchdog looks on, identities are summed for the ledger, metrics and checkpoints are written.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial, wraps
from typing import Any

from system.benchmark.line import Line, Target
from system.benchmark.recipes import LITTLE, small_recipe, stream_of
from system.benchmark.stages import Asked
from system.benchmark.streaming import Stream, opened, session
from system.benchmark.timing import Stopwatch
from system.benchmark.torch_work import threads
from system.data.assemble import StreamSpec, lookahead
from system.data.dataset import run_uri
from system.recipe import Recipe
from system.train.recorder import Recorder
from system.train.session import Values, Watchers, train_rank
from system.train.sums import StepSums
from system.train.telemetry import Metrics
from system.train.watchdog import Edges, Watchdog, keep_stacks, patience_for

STAGE = "loop"
STEPS = 120
# The recipes' own are 500 steps: this is eight times as often.
CHECKPOINT_STEPS = 60
CLIPS = 16
# What the loop calls to write down what it does; checkpoints count their time themselves.
TOLD = ((Metrics, "write"), (Recorder, "take"), (Recorder, "end_step"), (StepSums, "count"), (Watchdog, "at"))


def measure(asked: Asked) -> Sequence[Line]:
    """Measure the stage."""
    steps, every = (8, 4) if asked.short else (STEPS, CHECKPOINT_STEPS)
    recipe = small_recipe(
        asked,
        run={"name": "loop", "stop_at_step": steps},
        data={"uri": LITTLE, "clips_per_block": CLIPS}
        | ({"num_frames": 4, "size": 64} if asked.short else {"size": 96}),
        model={"size": "tiny", "depth": 4, "decoder_depth": 2},
        train={"global_batch": CLIPS, "micro_batch": CLIPS},
        resources={"decode_actors": 2, "read_actors": 2},
        checkpoint={"every_steps": every},
        telemetry={"picture_clips": 0},
    )
    spec = stream_of(recipe)
    with session(cpus=6, store_bytes=200_000_000), opened(spec) as stream:
        parts, told_s = _train(recipe, spec, stream)
        capacity = _capacity(spec, stream, asked)
    whole = sum(parts.values()) - parts["start"]
    rate = steps * CLIPS / whole
    says = f"trainer {rate:.1f} clips/s, the stages alone {capacity:.1f}; {steps} steps of {CLIPS} clips, one thread"
    telling = (
        f"checkpoints {parts['checkpoint'] / whole:.2%}, one every {every} steps; written down {told_s / whole:.2%}"
        f" (metrics, TensorBoard, ledger, clock, watchdog); {1e3 * whole / steps:.0f} ms a step"
    )
    kept = 100 * (parts["checkpoint"] + told_s) / whole
    return [
        _share("data wait", 100 * parts["data_wait"] / whole, 2.0, says),
        _share("telemetry and checkpoints", kept, 1.0, telling),
    ]


def _share(name: str, percent: float, most: float, says: str) -> Line:
    return Line(STAGE, name, "% of the time", percent, targets=(Target("at_most", most),), more=False, says=says)


def _train(recipe: Recipe, spec: StreamSpec, stream: Stream) -> tuple[dict[str, float], float]:
    """Train, and return where the loop's seconds went and those in which it told of itself."""
    parts: dict[str, float] = {}
    watch, clock = Stopwatch(), stream.clock

    def on_block(number: int) -> None:
        with watch:
            clock.advance.remote(number)

    def on_step(values: Values) -> None:
        parts.update(values["seconds"])
        with watch:
            clock.advance.remote(spec.layout.first_block(int(values["step"]) + 1), values)

    with ExitStack() as stack:
        stack.enter_context(threads(1))
        for owner, name in TOLD:
            stack.enter_context(timed(owner, name, watch))
        edges = Edges(clock.report.remote, partial(keep_stacks, run_uri(recipe)))
        watchdog = stack.enter_context(Watchdog(0, patience_for(recipe.resources.worker_timeout_s), edges))
        watchers = Watchers(on_block, on_step, at=watchdog.at)
        train_rank(recipe, spec.index_uri, 0, stream.blocks, watchers)
    return parts, watch()


def _capacity(spec: StreamSpec, stream: Stream, asked: Asked) -> float:
    """Return how many clips a second the stages go on to make for a trainer that does nothing."""
    watch = Stopwatch()
    stream.taken = spec.recipe.run.stop_at_step or 0
    return stream.make(2 if asked.short else lookahead(spec), 4 if asked.short else 40, watch) / watch()


@contextmanager
def timed(owner: type[Any], name: str, watch: Stopwatch) -> Iterator[None]:
    """Count the time that this thread spends in a method, for as long as the context is open.

    Args:
        owner: of the method.
        name: of the method.
        watch: counts.
    """
    method: Callable[..., Any] = getattr(owner, name)
    thread = threading.get_ident()

    @wraps(method)
    def counted(*arguments: Any, **options: Any) -> Any:
        if threading.get_ident() != thread:
            return method(*arguments, **options)
        with watch:
            return method(*arguments, **options)

    setattr(owner, name, counted)
    try:
        yield
    finally:
        setattr(owner, name, method)
