from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from system.errors import LeaseError
from system.train.goodput import Book
from system.train.shift import Shift


@dataclass
class Held:
    """A hold that may be lost."""

    lost: str | None = None

    def next_generation(self) -> int:
        return 1


def test_a_job_that_has_lost_its_run_goes_no_further(tmp_path: Path) -> None:
    hold = Held()
    book = Book(str(tmp_path), 1, 0.0)
    Shift(book).check()
    shift = Shift(book, hold)
    shift.check()
    hold.lost = "claim 2 by somebody is newer"
    with pytest.raises(LeaseError, match="claim 2 by somebody"):
        shift.check()
