"""The loop of a chaos run: watches the job, kills when it is time, starts again what has ended, and takes notes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from system.chaos.cluster import Nodes
from system.chaos.kills import Kill, Plan, Timetable, sequence, victim
from system.chaos.memory import EVERY_S, is_actor, is_trainer, look_once
from system.chaos.processes import kill as kill_process
from system.chaos.submitted import Submitted
from system.errors import SystemFault
from system.train.checkpoint import complete_steps

Say = Callable[[str], None]

# Seconds between two looks at the job, and between two at its checkpoints.
TICK_S = 0.2
COMMITS_S = 1.0
# A step that is told of within this time after a kill may be one from before it, seconds.
LAG_S = 1.0
# Neither a step nor a checkpoint for this long is a hang that nothing noticed, seconds.
STALL_S = 900.0


@dataclass(slots=True)
class Notes:
    """What was seen: the kills and what followed, and memory by role at each look at a run that has recovered, MiB."""

    kills: list[Kill] = field(default_factory=list)
    memory: list[dict[str, float]] = field(default_factory=list)


class Fire:
    """A job under fire.

    Args:
        job: which.
        nodes: its cluster.
        run_uri: the run's folder.
        plan: what is done to it.
        say: takes lines for the user.
        left_out: processes of ours that are no part of the run.
    """

    def __init__(
        self, job: Submitted, nodes: Nodes, run_uri: str, plan: Plan, say: Say, left_out: tuple[int, ...] = ()
    ) -> None:
        self._job, self._nodes, self._run_uri = job, nodes, run_uri
        self._plan, self._say, self._left_out = plan, say, left_out
        self._kinds = sequence(plan.kinds, plan.seed)
        self._next = next(self._kinds, None)
        self._timetable = Timetable(plan.every_s)
        self._step = self._committed = 0
        self._moved = self._looked = self._weighed = self._node_lost = 0.0
        self.notes = Notes()

    def burn(self) -> Notes:
        """Go on until the run is complete.

        Raises:
            UserError: if the user has to mend something.
            SystemFault: if the run does not get on.
        """
        self._moved = time.monotonic()
        self._job.start(self._commits())
        while (code := self._job.ended()) != 0:
            now = time.monotonic()
            if code is not None:
                killed = self._open is not None and self._open.pid == self._job.last_pid
                self._say(
                    "  the job is submitted again"
                    if killed
                    else f"the job ended with {code}: {self._job.why()}; it is submitted again"
                )
                self._job.start(self._commits())
            self._see_step(now)
            self._see_commits(now)
            self._weigh(now)
            self._replace(now)
            if self._timetable.due(now):
                self._kill()
            if now - self._moved > STALL_S:
                raise SystemFault(
                    f"neither a step nor a checkpoint for {STALL_S:.0f} s, at step {self._step}; {self._job.log}"
                )
            time.sleep(TICK_S)
        return self.notes

    @property
    def _open(self) -> Kill | None:
        """The last kill, while not everything that follows it has been seen."""
        last = self.notes.kills[-1] if self.notes.kills else None
        return last if last is not None and last.committed_at is None else None

    def _commits(self) -> int:
        return max(complete_steps(self._run_uri), default=0)

    def _see_step(self, now: float) -> None:
        step = self._job.step()
        if step is None:
            return
        self._step, self._moved = step, now
        last = self._open
        if last is not None and last.trained_at is None and now - last.at > LAG_S:
            last.trained_at = now
            self._timetable.recovered()
            self._say(f"  trains again after {now - last.at:.1f} s, at step {step}")

    def _see_commits(self, now: float) -> None:
        if now - self._looked < COMMITS_S:
            return
        self._looked = now
        committed = self._commits()
        if committed > self._committed:
            self._committed, self._moved = committed, now
        if self._timetable.saw(committed, now):
            last = self._open
            if last is not None:
                last.committed_at = now
                self._say(f"  checkpoint {committed} after {now - last.at:.1f} s")
            elif not self.notes.kills:
                self._say(f"checkpoint {committed}: the first")

    def _weigh(self, now: float) -> None:
        if self._timetable.settled and now - self._weighed >= EVERY_S:
            self._weighed = now
            self.notes.memory.append(look_once(self._job.pid, self._left_out))

    def _replace(self, now: float) -> None:
        if self._nodes.missing and now - self._node_lost >= self._plan.replace_after_s:
            self._say(f"  a new node, raylet {self._nodes.add()}")

    def _kill(self) -> None:
        """Kill what is next; if there is no process of that kind now, at a later look."""
        plan, number = self._plan, len(self.notes.kills)
        if self._next is None or (plan.most is not None and number >= plan.most):
            return
        alive = self._alive(self._next)
        if not alive:
            return
        pid = victim(alive, plan.seed, number)
        self._end(self._next, pid)
        now = time.monotonic()
        self.notes.kills.append(Kill(self._next, pid, now, self._step))
        self._say(f"kill {number + 1}: {self._next}, process {pid}, at step {self._step}, checkpoint {self._committed}")
        self._timetable.killed()
        self._next = next(self._kinds)

    def _alive(self, kind: str) -> list[int]:
        if kind == "driver":
            return [self._job.pid] if self._job.pid else []
        if kind == "node":
            return self._nodes.raylets()
        right = is_trainer if kind == "worker" else is_actor
        return sorted(each.pid for each in self._nodes.processes() if right(each))

    def _end(self, kind: str, pid: int) -> None:
        if kind == "driver":
            self._job.kill()
        elif kind == "node":
            self._nodes.kill(pid)
            self._node_lost = time.monotonic()
        else:
            for each in self._nodes.processes():
                if each.pid == pid:
                    kill_process(each)
