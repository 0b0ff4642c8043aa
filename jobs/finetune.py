"""Train a classifier of videos: `python -m jobs.finetune --recipe jobs/recipes/finetune-k400-vitb.yaml ...`.

`train.init_from=<a run, or weights>` says where its encoder comes from; without it everything is drawn. The run's name
and storage are its identity: the same command again resumes it. docs/finetuning.md
"""

from __future__ import annotations

from collections.abc import Sequence

from jobs.cli import run
from jobs.training import carry_out


def main(arguments: Sequence[str]) -> int:
    """Run the job."""
    return carry_out(arguments, "finetune", "Train a classifier of videos, from pre-trained weights or from scratch")


if __name__ == "__main__":
    run(main)
