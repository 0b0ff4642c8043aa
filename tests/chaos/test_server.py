from __future__ import annotations

import os
import urllib.error
import urllib.request

import pytest

from system.chaos.environment import environment, merged, private_cluster
from system.chaos.processes import look
from system.chaos.server import MIX, FaultyStore, shares


def status(url: str) -> int | None:
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


def test_the_kinds_of_faults_share_what_is_broken() -> None:
    assert sum(shares(0.05).values()) == pytest.approx(0.05)
    assert set(MIX) == {"error500", "error503", "reset", "short", "slow"}


def test_requests_break_at_the_proxy_only_and_nothing_is_left() -> None:
    with FaultyStore(1.0, 0) as store:
        pid = store.pid
        assert [status(f"{store.server}/") for _ in range(5)] == [200] * 5
        assert 200 not in [status(f"{store.proxy}/{number}") for number in range(5)]
        assert store.broken["AWS_ENDPOINT_URL"] == store.proxy != store.whole["AWS_ENDPOINT_URL"]
        counts = store.stop()
    assert counts is not None
    assert counts["requests"] == sum(counts["broken"].values()) == 5
    assert look(pid) is None
    assert store.stop() is None


def test_variables_are_there_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUBELET_TEST_A", "before")
    monkeypatch.delenv("TUBELET_TEST_B", raising=False)
    with environment({"TUBELET_TEST_A": None, "TUBELET_TEST_B": "now"}):
        assert "TUBELET_TEST_A" not in os.environ
        assert merged({"TUBELET_TEST_B": None, "TUBELET_TEST_C": "c"}).keys() == {
            *(set(os.environ) - {"TUBELET_TEST_B"}),
            "TUBELET_TEST_C",
        }
    assert os.environ["TUBELET_TEST_A"] == "before"
    assert "TUBELET_TEST_B" not in os.environ


def test_every_cluster_has_a_token_of_its_own() -> None:
    first, second = private_cluster(), private_cluster()
    assert first["RAY_AUTH_MODE"] == "token"
    assert first["RAY_AUTH_TOKEN"] != second["RAY_AUTH_TOKEN"]
    assert len(first["RAY_AUTH_TOKEN"] or "") == 64
