"""How a run's moment is shown: a view of some lines for a terminal of any width, and one line for everything else."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.cli import duration
from system.data.queues import StageNow
from system.train.live import Live

# Columns of the labels, and between two parts of a line.
LABEL, GAP = 9, 3
# The longest bar, and the least width of a view that has one; columns.
BAR, WITH_BAR = 40, 60
# No number is known.
DASH = "-"

_DIM, _BOLD, _RED, _PLAIN = "\x1b[2m", "\x1b[1m", "\x1b[1;31m", "\x1b[0m"


def state_of(live: Live) -> str:
    """Return in a word or two what a run that is under way does."""
    if live.workers is None:
        return "starting" if live.attempts <= 1 else "starting again"
    if live.silent:
        return f"no step for {duration(live.silent_s)}"
    return "training" if live.step < live.stop else "closing"


def view(live: Live, width: int, state: str | None = None) -> list[str]:
    """Return the lines of a view, none longer than the width; what is not known is a dash.

    Args:
        live: the run's moment.
        width: of the terminal, columns.
        state: of the run; default: what it does, as one that is under way.
    """
    state = state or state_of(live)
    rows = [
        ("step", _progress(live, width)),
        ("loss", [_number(live.loss), f"gradient {_number(live.grad_norm)}", f"learning rate {_number(live.lr)}"]),
        ("speed", _speed(live)),
        ("stages", [_stage(each) for each in live.stages] or [DASH]),
        ("workers", [_workers(live), f"restarts {live.restarts}", f"bad videos {_or_dash(live.bad_videos)}"]),
        ("saved", [_saved(live)]),
        ("time", [f"{duration(live.job_s)} of this job", *_run_time(live), f"computing {live.goodput:.0%}"]),
        ("cost", _cost(live)),
    ]
    lines = [line for label, parts in rows for line in _row(label, parts, width)]
    return [_head(live.run, state, width), *lines]


def painted(lines: Sequence[str], *, alarm: bool = False) -> list[str]:
    """Return a view's lines in colours: its head stands out, in red where something is wrong; labels step back."""
    head, *rest = lines
    labels = [f"{_DIM}{line[:LABEL]}{_PLAIN}{line[LABEL:]}" for line in rest]
    return [f"{_RED if alarm else _BOLD}{head}{_PLAIN}", *labels]


def live_view(live: Live, width: int) -> list[str]:
    """Return the view of a run that is under way, in colours."""
    return painted(view(live, width), alarm=state_of(live).startswith("no step"))


def live_line(live: Live) -> str:
    """Return a run's moment as one line; `jobs.submit` knows it by its beginning."""
    parts = [
        f"step {live.step}/{live.steps}",
        f"loss {DASH if live.loss is None else f'{live.loss:.4f}'}",
        _rate(live),
        f"data wait {_share(live.data_wait)}",
        f"{_time(live.left_s)} left",
        f"workers {_or_dash(live.workers)}",
        *([f"queued {', '.join(f'{each.stage} {each.queued}' for each in live.stages)}"] if live.stages else []),
        *([f"restarts {live.restarts}"] if live.restarts else []),
        f"saved {duration(live.unkept_s)} ago" if live.kept_here else "not saved yet",
        *([] if live.cost is None else [f"cost {live.cost:.2f}, {_money(live.cost_left)} to go"]),
    ]
    return "  ".join(parts)


def _head(name: str, state: str, width: int) -> str:
    """Return the name at the left and the state at the right; where there is no room, first the name is cut."""
    room = width - len(state) - GAP
    if room < len(name) and room < LABEL:
        return state[:width]
    return f"{name[:room]:{room}}{' ' * GAP}{state}"


def _row(label: str, parts: Sequence[str], width: int) -> list[str]:
    """Put a label before its parts, on as many lines as they take."""
    room = max(1, width - LABEL)
    lines = [""]
    for part in parts:
        joined = f"{lines[-1]}{' ' * GAP}{part}" if lines[-1] else part
        if len(joined) <= room:
            lines[-1] = joined
        else:
            lines.append(part[:room])
    texts = [line for line in lines if line] or [DASH]
    return [f"{label if number == 0 else '':{LABEL}}{text}"[:width] for number, text in enumerate(texts)]


def _progress(live: Live, width: int) -> list[str]:
    share = live.step / max(1, live.steps)
    until = "" if live.stop == live.steps else f" (this start ends at {live.stop})"
    told = [f"{live.step}/{live.steps}{until}", f"{share:.0%}", f"{_time(live.left_s)} left"]
    room = min(BAR, width - LABEL - sum(map(len, told)) - 3 * GAP - 2)
    if width < WITH_BAR or room < GAP:
        return told
    done = int(share * room)
    return [told[0], f"[{'#' * done}{'.' * (room - done)}]", *told[1:]]


def _speed(live: Live) -> list[str]:
    step = f"step {DASH if live.pace_s is None else f'{live.pace_s:.3g} s'}"
    return [_rate(live), step, f"data wait {_share(live.data_wait)}", f"MFU {_share(live.mfu)}"]


def _stage(stage: StageNow) -> str:
    if stage.actors is None:
        return f"{stage.stage}: {stage.queued} ready"
    return f"{stage.stage}: {stage.queued} queued, {_or_dash(stage.busy)} of {stage.actors} busy"


def _workers(live: Live) -> str:
    return f"{_or_dash(live.workers)} ({live.wanted or DASH} wanted)"


def _saved(live: Live) -> str:
    if live.kept_here:
        return f"step {live.checkpoint}, {duration(live.unkept_s)} ago"
    before = f"step {live.checkpoint} by an earlier job, " if live.checkpoint else ""
    return f"{before}nothing by this one yet, for {duration(live.unkept_s)}"


def _run_time(live: Live) -> list[str]:
    return [f"{duration(live.run_s)} of the run"] if live.run_s - live.job_s >= 1 else []


def _cost(live: Live) -> list[str]:
    if live.cost is None:
        return [DASH]
    return [f"{live.cost:.2f} so far", f"{_money(live.cost_left)} to go", f"{live.price_per_hour:g} an hour"]


def _number(value: float | None) -> str:
    return DASH if value is None else f"{value:.4g}"


def _or_dash(value: int | None) -> str:
    return DASH if value is None else str(value)


def _share(value: float | None) -> str:
    return DASH if value is None else f"{value:.0%}"


def _rate(live: Live) -> str:
    return f"{DASH if live.clips_per_s is None else f'{live.clips_per_s:.1f}'} clips/s"


def _time(seconds: float | None) -> str:
    return DASH if seconds is None else duration(seconds)


def _money(value: float | None) -> str:
    return DASH if value is None else f"{value:.2f}"
