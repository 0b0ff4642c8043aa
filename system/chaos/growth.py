"""A run on a cluster that begins with a head alone, from its submission until the last machine is gone again.

Machines come for decoding while the trainer starves. One of them is taken away without a word, and another comes. Then
the trainer is slowed down, so that decoding has little to do, and machines go. What was there and what was asked for is
looked at all the while, and the run's ledger is audited at the end.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from system import storage
from system.chaos import processes
from system.chaos.autoscaled import Autoscaled, MachineType
from system.chaos.environment import Variables, merged
from system.chaos.memory import is_trainer
from system.chaos.story import Say, Verdict, judge
from system.chaos.submitted import Submitted, command_for
from system.data.dataset import run_uri
from system.errors import SystemFault
from system.recipe import load_recipe
from system.report.machine_counts import Look, Mark, Timeline

# How often a cluster is looked at, and how long anything may take, seconds.
LOOK_S = 0.5
PATIENCE_S = 300.0
# A slow trainer works for so long, stands still for so long, and so on, seconds.
WORK_S, STAND_S = 0.05, 4.0
# How long the job may take to save and to end, seconds.
STOP_S = 120.0

# As in the cluster files, and smaller: `decode` counts places on machines that decode, `train` on those that train. The
# trainer computes on a core, since a machine that only says that it has GPUs is refused by it; so no request may bring
# the third kind, which has cores enough for anything, and GPUs.
TYPES: Mapping[str, MachineType] = {
    "decode": MachineType(cpus=3, most=2, places={"decode": 2}),
    "train": MachineType(cpus=2, most=1, places={"train": 1}),
    "GPUs": MachineType(cpus=8, most=2, gpus=4),
}
PLACED = (
    "resources.use_gpu=false",
    "resources.num_workers=1",
    "resources.worker_resources.train=1",
    "resources.decode_resources.decode=1",
    "resources.decode_actors=[1,4]",
    # The run ends when all has been seen.
    "train.steps=1000000",
    # Clips that take many times longer to decode than a small model takes to train on them, and many of them a step.
    "data.uri=synthetic://moving?videos=16&frames=64&height=360&width=480",
    "data.num_frames=16",
    "data.stride=4",
    "train.global_batch=48",
    "train.micro_batch=48",
)


@dataclass(frozen=True, slots=True)
class Growing:
    """What is asked for.

    Attributes:
        recipe: its file.
        overrides: laid over it, and over `PLACED`.
        idle_s: a machine without work for so long is taken away.
        more_steps: that are done after all of it, before the run is told to stop.
        folder: takes the run and the job's output.
        scratch: takes the cluster's files; its path may not be long.
        slow: the trainer is slowed down for a while, which takes a minute or more.
    """

    recipe: str
    overrides: tuple[str, ...]
    idle_s: float
    more_steps: int
    folder: Path
    scratch: Path
    slow: bool = True


@dataclass(slots=True)
class _Watch:
    """Looks at the cluster and at the job until something has happened."""

    cluster: Autoscaled
    job: Submitted
    say: Say
    looks: list[Look] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    step: int = 0

    def look(self) -> Look:
        if self.job.starts:
            self.step = self.job.step() or self.step
        self.looks.append(self.cluster.look(self.step))
        return self.looks[-1]

    def until(self, what: str, happened: Callable[[Look], bool], *, job_ended: bool = False) -> Look:
        """Look until it has happened, and mark it.

        Raises:
            SystemFault: if it does not, or if the job ends before.
        """
        end = time.monotonic() + PATIENCE_S
        while not happened(look := self.look()):
            if not job_ended and self.job.ended() is not None:
                raise SystemFault(f"the job ended before this: {what}; {self.job.why()}; its output: {self.job.log}")
            if time.monotonic() > end:
                raise SystemFault(f"not within {PATIENCE_S:.0f} s: {what}; the job's output: {self.job.log}")
            time.sleep(LOOK_S)
        self.mark(what, look)
        return look

    def mark(self, what: str, look: Look) -> None:
        """Note and tell what happened at a look."""
        self.marks.append(Mark(look.at_s, what))
        there = ", ".join(f"{count} {kind}" for kind, count in look.there.items() if count) or "the head alone"
        self.say(f"[{look.at_s:6.0f} s] {what}; {there}; step {look.step}")


def findings(timeline: Timeline, types: Mapping[str, MachineType]) -> Iterator[str]:
    """Yield what should not have been: machines with GPUs, and requests for one, of a run that needs none.

    Args:
        timeline: of the run.
        types: of the cluster's machines.
    """
    for kind, each in types.items():
        if each.gpus and max(timeline.counts(kind), default=0):
            yield f"a machine with GPUs was started: {kind}"
    bundles = {tuple(sorted(asked.items())) for look in timeline.looks for asked, _ in look.asked}
    for bundle in sorted(bundles):
        if dict(bundle).get("GPU"):
            yield f"a GPU was asked for: {dict(bundle)}"


@contextmanager
def slow_trainers() -> Iterator[None]:
    """Let the trainers' processes work for a moment now and then only, until the end.

    Raises:
        SystemFault: if there are none.
    """
    trainers = [each for each in processes.descendants(os.getpid()) if is_trainer(each)]
    if not trainers:
        raise SystemFault("no process of a trainer is to be found")
    over = threading.Event()

    def send(number: signal.Signals) -> None:
        for each in trainers:
            with suppress(ProcessLookupError):
                os.kill(each.pid, number)

    def slow() -> None:
        while not over.is_set():
            send(signal.SIGSTOP)
            over.wait(STAND_S)
            send(signal.SIGCONT)
            over.wait(WORK_S)

    thread = threading.Thread(target=slow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        send(signal.SIGCONT)


def _carry_out(watch: _Watch, more_steps: int, *, slow: bool) -> None:
    """Take a run through it all; it is told to stop at the end."""
    cluster, job = watch.cluster, watch.job
    most = TYPES["decode"].most
    watch.mark("submitted", watch.look())
    job.start(-1)
    watch.until("the first step", lambda look: look.step > 0)
    watch.until(
        "the trainer starves: all machines that may decode are there", lambda look: look.there["decode"] == most
    )
    victim = cluster.names("decode")[-1]
    cluster.take_away(victim)
    lost = watch.look()
    watch.mark("a machine that decodes is taken away without a word", lost)
    watch.until("another has come for it", lambda _: len(set(cluster.names("decode")) - {victim}) == most)
    watch.until("trained on", lambda look: look.step >= lost.step + more_steps)
    if slow:
        with slow_trainers():
            watch.mark("the trainer is slowed down", watch.look())
            still = watch.until(
                "decoding has little to do: one machine is left", lambda look: look.there["decode"] == 1
            )
        watch.until("the trainer goes on", lambda look: look.step >= still.step + more_steps)
    job.stop(STOP_S)
    watch.until("stopped: the last machine has gone", lambda look: not sum(look.there.values()), job_ended=True)


def run_growing(order: Growing, variables: Variables, say: Say) -> tuple[Timeline, list[str], Verdict]:
    """Carry out a run on a cluster that grows and shrinks.

    Args:
        order: what is asked for.
        variables: of the cluster, from `environment.private_cluster`, which are this process's already.
        say: takes lines for the user.

    Returns:
        What was there, what should not have been, and the audit's verdict.

    Raises:
        UserError: if the user has to mend something.
        SystemFault: if something does not come to pass.
    """
    given = [*PLACED, *order.overrides, f"run.storage={storage.join(str(order.folder), 'runs')}"]
    recipe = load_recipe(order.recipe, given)
    processes.adopt_orphans()
    with Autoscaled(TYPES, order.idle_s, variables, order.scratch) as cluster:
        command = command_for(order.recipe, given, cluster.address)
        job = Submitted(command, order.folder / "job.log", merged(variables))
        watch = _Watch(cluster, job, say)
        try:
            _carry_out(watch, order.more_steps, slow=order.slow)
        finally:
            job.stop(0)
            timeline = Timeline(watch.looks, watch.marks)
            (order.folder / "autoscaler.log").write_text(cluster.said())
            (order.folder / "machines.json").write_text(timeline.as_json())
    return timeline, list(findings(timeline, TYPES)), judge(run_uri(recipe), say)
