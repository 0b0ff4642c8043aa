"""A tracker's own process: rows come as JSON lines on stdin, and go to W&B or MLflow. Ends with its input.

Keys and addresses are the services' own variables in the environment (WANDB_API_KEY, MLFLOW_TRACKING_URI, ...). Nothing
of the run waits for this process, and what it prints on stdout is told the user.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

# Rows that are kept for a service that does not answer.
KEPT = 10_000
# How long it goes on after its input has ended, seconds; the driver waits for less (trackers.py).
LAST_S = 60.0
PROJECT = "tubelet"
# MLflow's limits: parameters of a call, and characters of a value.
PARAMS, PARAM_CHARS = 100, 500


class Tracker(Protocol):
    """A service with the run open in it."""

    def log(self, row: Mapping[str, float]) -> None:
        """Log a step's numbers, `step` and `time` among them."""
        ...

    def end(self, status: str) -> None:
        """Close the run: `complete`, `stopped` or `failed`."""
        ...


def serve(lines: Iterable[str], make: Callable[[dict[str, Any]], Tracker], say: Callable[[str], None]) -> None:
    """Give rows to a tracker until they end; what it does not take now is offered again with the next one.

    Args:
        lines: messages: who the run is, then `row`s, then `end`.
        make: opens the run in the tracker.
        say: takes lines for the user; an error is told when it first occurs.
    """
    said: set[str] = set()
    waiting: deque[dict[str, Any]] = deque(maxlen=KEPT)
    tracker: Tracker | None = None
    first: dict[str, Any] = {}
    status = "failed"
    for line in lines:
        message = json.loads(line)
        if not first:
            first = message
        elif "end" in message:
            status = message["end"]
        else:
            waiting.append(message["row"])
        try:
            tracker = tracker or make(first)
            _give(tracker, waiting)
        except Exception as error:  # noqa: BLE001  whatever it is, the run goes on, and it is tried again
            _tell(error, said, say)
    if tracker is not None:
        try:
            _give(tracker, waiting)
            tracker.end(status)
        except Exception as error:  # noqa: BLE001
            _tell(error, said, say)


def _give(tracker: Tracker, waiting: deque[dict[str, Any]]) -> None:
    while waiting:
        tracker.log(waiting[0])
        waiting.popleft()


def _tell(error: Exception, said: set[str], say: Callable[[str], None]) -> None:
    kind = type(error).__name__
    if kind not in said:
        said.add(kind)
        say(f"{kind}: {str(error).splitlines()[0][:300] if str(error) else 'no reason given'}; the run goes on")


class WandB:
    """Weights & Biases. Where it cannot be reached, its files are kept, for `wandb sync`.

    Args:
        first: who the run is.
        say: takes lines for the user.
    """

    def __init__(self, first: Mapping[str, Any], say: Callable[[str], None]) -> None:
        import wandb  # noqa: PLC0415  an extra

        folder = Path(os.environ.get("WANDB_DIR") or first["folder"])
        folder.mkdir(parents=True, exist_ok=True)
        common: dict[str, Any] = {
            "project": os.environ.get("WANDB_PROJECT", PROJECT),
            "id": first["id"],
            "name": first["run"],
            "config": first["config"],
            "dir": str(folder),
        }
        settings = wandb.Settings(console="off", init_timeout=30)
        try:
            self._run = wandb.init(resume="allow", settings=settings, **common)
        except (wandb.errors.CommError, wandb.errors.UsageError) as error:
            say(f"{error}; what it would get is kept in {folder / 'wandb'}, for `wandb sync`")
            wandb.teardown()  # or its service still holds the run
            self._run = wandb.init(mode="offline", settings=settings, **common)
        # A resumed run repeats steps; W&B's own steps only rise.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def log(self, row: Mapping[str, float]) -> None:
        """Log a step's numbers; returns before they are sent."""
        self._run.log({name: value for name, value in row.items() if name != "time"})

    def end(self, status: str) -> None:
        """Close the run."""
        self._run.summary["status"] = status
        self._run.finish(exit_code=1 if status == "failed" else 0)


class MLflow:
    """MLflow: the run with our tag, or a new one.

    Args:
        first: who the run is.
    """

    def __init__(self, first: Mapping[str, Any]) -> None:
        # Seconds, not its hours: rows are offered again anyway.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        if "MLFLOW_TRACKING_URI" not in os.environ:
            os.environ["MLFLOW_TRACKING_URI"] = f"file:{Path(first['folder']) / 'mlruns'}"
            # MLflow asks for consent: its files get no new features. Its database needs the whole of it.
            os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
        import mlflow  # noqa: PLC0415  an extra

        self._client = mlflow.MlflowClient()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        found = self._client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self._client.create_experiment(name)
        known = self._client.search_runs([experiment], f"tags.tubelet_id = '{first['id']}'", max_results=1)
        run = (
            known[0]
            if known
            else self._client.create_run(experiment, tags={"tubelet_id": first["id"]}, run_name=first["run"])
        )
        self._id = run.info.run_id
        self._client.update_run(self._id, status="RUNNING")
        self._params(first["config"], set(run.data.params))

    def _params(self, config: Mapping[str, Any], known: set[str]) -> None:
        from mlflow.entities import Param  # noqa: PLC0415

        # Those that are there already stay: what a resumed run may change does not change what it computes.
        new = [Param(name, str(value)[:PARAM_CHARS]) for name, value in config.items() if name not in known]
        for start in range(0, len(new), PARAMS):
            self._client.log_batch(self._id, params=new[start : start + PARAMS])

    def log(self, row: Mapping[str, float]) -> None:
        """Log a step's numbers."""
        from mlflow.entities import Metric  # noqa: PLC0415

        step, at = int(row["step"]), int(1000 * row.get("time", time.time()))
        metrics = [Metric(name, float(value), at, step) for name, value in row.items() if name not in ("step", "time")]
        self._client.log_batch(self._id, metrics=metrics)

    def end(self, status: str) -> None:
        """Close the run."""
        self._client.set_terminated(self._id, {"complete": "FINISHED", "stopped": "KILLED"}.get(status, "FAILED"))


def _messages() -> Iterator[str]:
    """Yield what the driver sends; after that this process ends in a while, whatever a library still waits for."""
    there: queue.Queue[str | None] = queue.Queue(KEPT)
    threading.Thread(target=_read, args=(there,), daemon=True).start()
    while (line := there.get()) is not None:
        yield line


def _read(there: queue.Queue[str | None]) -> None:
    """Read to the end, also while a library waits, and without waiting for it: the oldest that waits is dropped."""
    for line in chain(sys.stdin, [None]):
        if there.full():  # nobody else puts
            with suppress(queue.Empty):
                there.get_nowait()
        there.put(line)
    time.sleep(LAST_S)
    os._exit(1)


def _say(line: str) -> None:
    sys.__stdout__.write(line.replace("\n", " ") + "\n")  # type: ignore[union-attr]
    sys.__stdout__.flush()  # type: ignore[union-attr]


def main(name: str) -> None:
    """Serve the rows on stdin."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends with its input, which ends with the driver
    sys.stdout = sys.stderr  # the libraries' own words
    makers: dict[str, Callable[[dict[str, Any]], Tracker]] = {
        "wandb": lambda first: WandB(first, _say),
        "mlflow": MLflow,
    }
    serve(_messages(), makers[name], _say)


if __name__ == "__main__":
    main(sys.argv[1])
