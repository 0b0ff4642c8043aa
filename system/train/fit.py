"""One attempt of a run, as Ray Train carries it out: a fixed number of workers, and no second try."""

from __future__ import annotations

import tempfile
import threading
import uuid
from typing import Any

from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from system.train.elastic import worker_bundle
from system.train.group import GroupConfig
from system.train.streams import STREAM, ClipDataConfig, Job, stand_in, work


class Fit:
    """One attempt in a thread: the main thread stays free for signals.

    Args:
        job: for the workers.
        ranks: how many there are.
        gpu: each has a share of a GPU.

    Attributes:
        error: what it ended with; None: nothing, so far.
        ended: set at its end.
    """

    def __init__(self, job: Job, ranks: int, *, gpu: bool) -> None:
        self._job, self._ranks, self._gpu = job, ranks, gpu
        self.error: Exception | None = None
        self.ended = threading.Event()
        threading.Thread(target=self._run, name="fit", daemon=True).start()

    def _run(self) -> None:
        try:
            self._fit()
        except Exception as error:  # noqa: BLE001  judged by the main thread
            self.error = error
        finally:
            self.ended.set()

    def _fit(self) -> None:
        recipe, resources = self._job.recipe, self._job.recipe.resources
        # Fields that Ray's annotation of Train v1 does not know.
        limits: dict[str, Any] = {"max_preemption_failures": 0, "controller_failure_limit": 0}
        with tempfile.TemporaryDirectory(prefix="tubelet-", ignore_cleanup_errors=True) as folder:
            # Ray's annotations: a function of a dict, and the configuration of Train v1. Any value does, and v2 runs.
            trainer = DataParallelTrainer(
                work,  # type: ignore[arg-type]
                train_loop_config=self._job,  # type: ignore[arg-type]
                backend_config=GroupConfig(
                    int(resources.worker_timeout_s), ("deepspeed",) if recipe.engine.name == "deepspeed" else ()
                ),
                scaling_config=ScalingConfig(
                    num_workers=self._ranks,
                    use_gpu=self._gpu,
                    resources_per_worker=worker_bundle(recipe, gpu=self._gpu),
                ),
                datasets={STREAM: stand_in},
                dataset_config=ClipDataConfig(self._job),
                # Ray Train gets no checkpoint, so what it stores is of this attempt only. While it waits for
                # machines it calls for them; when its patience ends the next attempt does.
                run_config=RunConfig(
                    name=f"{recipe.run.name}-{uuid.uuid4().hex[:8]}",
                    storage_path=folder,
                    failure_config=FailureConfig(max_failures=0, **limits),
                    logging_config=LoggingConfig(log_level="ERROR"),  # type: ignore[call-arg]
                ),
            )
            trainer.fit()
