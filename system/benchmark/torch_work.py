"""What every measurement with torch needs: a number of threads, and a device that has finished."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use so many threads of a CPU."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def finished(work: Callable[[], int], device: torch.device, times: int = 1) -> Callable[[], int]:
    """Return work that is done so many times, and over only when its device has finished."""

    def done() -> int:
        items = sum(work() for _ in range(times))
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return items

    return done
