from __future__ import annotations

from typing import Any

from system.data.trimming import TrimStatistics, forget_finished


def test_a_queue_that_keeps_order_goes_on_as_before() -> None:
    from ray.data._internal.execution.bundle_queue.reordering import ReorderingBundleQueue

    queue: Any = ReorderingBundleQueue()  # type: ignore[no-untyped-call]
    for key in (0, 1, 2):
        queue.finalize(key)
    assert not queue.has_next()
    assert len(queue._inner) == 4
    forget_finished(queue)
    assert list(queue._inner) == [3]
    assert not queue._finalized_keys
    queue.finalize(4)
    queue.finalize(3)
    assert not queue.has_next()
    assert queue._current_key == 5


def test_what_it_does_not_know_it_leaves_alone() -> None:
    forget_finished(object())
    TrimStatistics().on_execution_step(object())
    TrimStatistics().on_execution_step(type("Executor", (), {"_topology": {object(): None}})())
