"""Collecting is paused while modules are imported, and goes on afterwards."""

from __future__ import annotations

import gc

import pytest

from system.collection import pause, paused, resume


def test_nothing_is_collected_meanwhile_and_what_came_is_left_out_afterwards() -> None:
    gc.unfreeze()
    try:
        with paused():
            assert not gc.isenabled()
            with paused():
                pass
            assert not gc.isenabled(), "a pause within another one does not end it"
        assert gc.isenabled()
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()


def test_an_error_ends_a_pause() -> None:
    with pytest.raises(KeyError), paused():
        raise KeyError
    assert gc.isenabled()
    gc.unfreeze()


def test_to_resume_what_was_not_paused_freezes_nothing() -> None:
    gc.unfreeze()
    resume()
    assert gc.get_freeze_count() == 0
    pause()
    resume()
    assert gc.isenabled()
    gc.unfreeze()
