"""A rank of two that sum a number at each step; rank 1 stops before the third."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist

from system.data.reports import PhaseReport
from system.train.watchdog import Edges, Patience, Watchdog, keep_stacks

PATIENCE = Patience(deadline_s=1.0, start_s=60.0, look_s=0.05, tell_s=0.2, flush_s=0.0)


def rank(number: int, folder: str) -> None:
    """Train, so to speak."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=number, world_size=2)

    def tell(report: PhaseReport) -> None:
        if number == 0:
            with Path(folder, "told.txt").open("a") as file:
                file.write(f"{report.level} {report.phase} {report.what}\n")

    with Watchdog(number, PATIENCE, Edges(tell, partial(keep_stacks, folder))) as watchdog:
        for step in range(4):
            watchdog.at("compute", f"step {step}")
            if number == 1 and step == 2:
                Path(folder, "rank_1_stops").touch()
                time.sleep(60)  # until the test has frozen it
            watchdog.at("collective", f"sum of step {step}")
            dist.all_reduce(torch.ones(1))
