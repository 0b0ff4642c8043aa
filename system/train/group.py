"""The workers' process group: how Ray Train has it set up, without torch in Ray Train's own processes.

What Ray's `TorchConfig` does is done by Ray's functions, but on the workers alone. So its controller, whose start every
start of a run waits for, does not import torch; and a worker reads in the background what takes it longest to import.
"""

from __future__ import annotations

import importlib
import logging
import os
import threading
from dataclasses import dataclass
from typing import Any

import ray
from ray.train._internal.utils import get_address_and_port
from ray.train.backend import Backend, BackendConfig
from ray.train.v2._internal.util import TrainingFramework

from system.collection import pause

logger = logging.getLogger(__name__)

# A collective gives up so much later than a rank's watchdog, seconds.
WATCHDOG_FIRST_S = 60
# At its end a group waits for its members for so long, seconds: one of them may be frozen.
LEAVE_S = 5.0
# Networks and the first step of any optimizer need it: seconds.
SLOW_TO_IMPORT = ("torch._dynamo",)


@dataclass
class GroupConfig(BackendConfig):
    """The workers' process group: NCCL where every one of them was given a GPU and sees it, else gloo.

    Ray's own rule looks at what was asked for alone, and a GPU that Ray counts is not one that torch can use.

    Attributes:
        timeout_s: patience of a rank's watchdog.
        imports: packages that every worker will need and that are slow to import.
    """

    timeout_s: int = 1800
    imports: tuple[str, ...] = ()

    @property
    def backend_cls(self) -> type[Backend]:
        """Return what Ray Train sets the group up with."""
        return _Group

    @property
    def framework(self) -> TrainingFramework:
        """Return what Ray's pages call it."""
        return TrainingFramework.TORCH

    def to_dict(self) -> dict[str, Any]:
        """Return what Ray's pages show."""
        return {"timeout_s": self.timeout_s}


class _Group(Backend):
    # Ranks of one machine see each other's GPUs: NCCL moves data between them directly.
    share_cuda_visible_devices = True

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        given = worker_group.get_resources_per_worker().get("GPU", 0) > 0
        found = worker_group.execute(_ready, given)
        backend = "nccl" if given and all(found) else "gloo"
        # Not sooner: the port is free until somebody else takes it.
        address, port = worker_group.execute_single(0, get_address_and_port)
        # The watchdogs speak first: they know who waits for whom, and a collective that gives up does not.
        patience = backend_config.timeout_s + WATCHDOG_FIRST_S
        worker_group.execute(_join, backend, address, port, patience, backend_config.imports)

    def on_shutdown(self, worker_group: Any, backend_config: Any) -> None:
        try:
            ray.get(worker_group.execute_async(_leave), timeout=LEAVE_S)
        except ray.exceptions.GetTimeoutError:
            logger.warning("a worker did not leave its process group within %.0f s", LEAVE_S)


def _ready(given: bool) -> bool:
    """Return, on a worker that was given a GPU, whether torch sees it."""
    pause()  # until all is imported
    import torch  # noqa: PLC0415

    return given and torch.cuda.is_available()


def _join(backend: str, address: str, port: int, timeout_s: int, imports: tuple[str, ...]) -> None:
    """Join the group, on a worker."""
    from ray.train.torch import config  # noqa: PLC0415

    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = address, str(port)
    # Machines with GPUs show them to processes that have none, and DeepSpeed would take one.
    os.environ["DS_ACCELERATOR"] = "cuda" if backend == "nccl" else "cpu"
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # DeepSpeed's import asks it for a compiler
    config._set_torch_distributed_env_vars()  # type: ignore[no-untyped-call]
    context = ray.train.get_context()
    rank, size = context.get_world_rank(), context.get_world_size()
    _import_behind((*SLOW_TO_IMPORT, *imports))
    config._setup_torch_process_group(backend, rank, size, "env://", timeout_s)


def _leave() -> None:
    """Leave the group, on a worker."""
    from ray.train.torch import config  # noqa: PLC0415

    config._shutdown_torch(destroy_process_group=True)  # type: ignore[no-untyped-call]


_behind: threading.Thread | None = None


def _import_behind(names: tuple[str, ...]) -> None:
    global _behind  # noqa: PLW0603  one a process, as its modules are

    def read() -> None:
        for name in names:
            importlib.import_module(name)

    _behind = threading.Thread(target=read, name="imports", daemon=True)
    _behind.start()


def imported() -> None:
    """Wait, on a worker, for what is imported behind its start. What failed fails again for whoever needs it."""
    if _behind is not None:
        _behind.join()
