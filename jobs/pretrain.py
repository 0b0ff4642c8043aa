"""Pre-train a video transformer: `python -m jobs.pretrain --recipe jobs/recipes/smoke.yaml section.field=value ...`.

The run's name and storage are its identity: the same command again resumes it.
"""

from __future__ import annotations

from collections.abc import Sequence

from jobs.cli import run
from jobs.training import carry_out


def main(arguments: Sequence[str]) -> int:
    """Run the job."""
    return carry_out(arguments, "pretrain", "Pre-train a video transformer")


if __name__ == "__main__":
    run(main)
