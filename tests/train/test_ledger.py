from __future__ import annotations

import json

import numpy as np
import pytest

from system.data.notes import Note
from system.errors import ResumeError
from system.train.ledger import Made, Segment, from_bytes, ref_of, to_bytes

FIRST = Segment(None, 0, 2, 4, np.arange(8, dtype=np.uint64).reshape(2, 4))
NOTE = Note(9, 1, 0, "open", "no video")
NEXT = Segment(
    ref_of(FIRST), 2, 3, 4, np.full((1, 8), 2**64 - 1, np.uint64), (NOTE,), {2: "inf"}, Made(2, 7, {"av": "1"})
)


@pytest.mark.parametrize("segment", [FIRST, NEXT])
def test_a_segment_is_read_as_it_was_written(segment: Segment) -> None:
    found = from_bytes(to_bytes(segment))
    assert to_bytes(found) == to_bytes(segment)
    assert (found.slots, found.chain, found.previous) == (segment.slots, segment.chain, segment.previous)
    assert (found.records == segment.records).all()


def test_a_segment_of_another_version_is_named_and_not_taken_for_damage() -> None:
    newer = json.dumps({**json.loads(to_bytes(FIRST)), "version": 2}).encode()
    with pytest.raises(ResumeError, match="is of version 2, this is 1"):
        from_bytes(newer)
