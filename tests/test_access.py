"""Who may use a cluster: tokens are made for their user alone, and nothing goes elsewhere without one."""

from __future__ import annotations

import errno
import http.server
import os
import socketserver
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from system.access import check_cluster, has_token, make_token, send_token
from system.errors import ClusterError

ELSEWHERE = ["10.1.2.3:6379", "head.example.com:6379", "ray://head.example.com:10001", "[2001:db8::1]:6379"]
HERE = ["127.0.0.1:6379", "localhost:6379", "ray://127.0.0.1:10001", "[::1]:6379"]


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_token_is_made_once_and_for_its_user_alone(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path)}
    assert not has_token(home)
    make_token(home)
    path = tmp_path / ".ray" / "auth_token"
    token = path.read_text()
    assert len(token) == 64
    assert (mode_of(path), mode_of(path.parent)) == (0o600, 0o700)
    path.chmod(0o644)  # as Ray leaves it
    make_token(home)
    assert (path.read_text(), mode_of(path)) == (token, 0o600)
    assert [each.name for each in path.parent.iterdir()] == ["auth_token"]
    assert has_token(home)


def test_a_home_without_hard_links_and_one_that_is_for_reading_alone_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "refused")

    home, path = {"HOME": str(tmp_path)}, tmp_path / ".ray" / "auth_token"
    monkeypatch.setattr(os, "link", refuse)
    make_token(home)
    token = path.read_text()
    assert (len(token), mode_of(path)) == (64, 0o600)
    assert list(path.parent.iterdir()) == [path]
    monkeypatch.setattr(Path, "chmod", refuse)
    make_token(home)
    assert path.read_text() == token


def test_a_home_that_cannot_be_written_is_told_with_the_ways_out(tmp_path: Path) -> None:
    (tmp_path / "home").write_bytes(b"")
    with pytest.raises(
        ClusterError, match=r"home/\.ray/auth_token: Not a directory; set HOME .* RAY_AUTH_MODE=disabled"
    ):
        make_token({"HOME": str(tmp_path / "home")})


@pytest.mark.parametrize(
    "told", [{"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN": "x"}, {"RAY_AUTH_TOKEN_PATH": "/run/token"}]
)
def test_no_token_is_made_where_the_user_has_said_another_thing(tmp_path: Path, told: dict[str, str]) -> None:
    make_token({"HOME": str(tmp_path), **told})
    assert not list(tmp_path.iterdir())


def test_a_token_at_hand_is_sent_unless_the_user_says_no(tmp_path: Path) -> None:
    nothing = {"HOME": str(tmp_path)}
    send_token(nothing)
    assert "RAY_AUTH_MODE" not in nothing
    make_token(nothing)
    send_token(nothing)
    assert nothing["RAY_AUTH_MODE"] == "token"
    disabled = {"HOME": str(tmp_path), "RAY_AUTH_MODE": "disabled"}
    send_token(disabled)
    assert disabled["RAY_AUTH_MODE"] == "disabled"


@pytest.mark.parametrize("address", ELSEWHERE)
def test_a_cluster_on_other_machines_to_which_no_token_is_sent_is_refused(tmp_path: Path, address: str) -> None:
    nothing = {"HOME": str(tmp_path)}
    # To an address that is named, Ray sends a token only where the mode says so.
    for environment in (nothing, {**nothing, "RAY_AUTH_TOKEN": "x"}, {**nothing, "RAY_AUTH_MODE": "token"}):
        with pytest.raises(ClusterError, match=r"no token is sent to it: .* Set RAY_AUTH_MODE=token"):
            check_cluster(address, environment)
    check_cluster(address, {**nothing, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "x"})
    check_cluster(address, {**nothing, "RAY_AUTH_MODE": "disabled"})


def test_auto_is_the_cluster_that_the_environment_names_and_else_the_one_of_this_machine(tmp_path: Path) -> None:
    nothing = {"HOME": str(tmp_path)}
    for environment in (nothing, {**nothing, "RAY_ADDRESS": "auto"}, {**nothing, "RAY_ADDRESS": HERE[0]}):
        check_cluster("auto", environment)
    with pytest.raises(ClusterError, match=r"the cluster at 10\.1\.2\.3:6379 is not on this machine"):
        check_cluster("auto", {**nothing, "RAY_ADDRESS": ELSEWHERE[0]})


@pytest.mark.parametrize("address", HERE)
def test_a_cluster_on_this_machine_needs_no_word(tmp_path: Path, address: str) -> None:
    check_cluster(address, {"HOME": str(tmp_path)})


def test_a_run_does_not_join_a_cluster_on_other_machines_without_a_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from system.train.launch import connect
    from tests.small import tiny_recipe

    monkeypatch.delenv("RAY_AUTH_MODE")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_ADDRESS", "192.0.2.1:6379")  # of no machine anywhere
    with pytest.raises(ClusterError, match=r"192\.0\.2\.1"):
        connect(tiny_recipe(tmp_path))


@contextmanager
def dashboard(status: int) -> Iterator[str]:
    """Serve one status to everybody, and give the address."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@contextmanager
def no_web_server() -> Iterator[str]:
    """Answer everybody as gRPC does, and give the address."""

    class Answer(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.rfile.readline()
            self.wfile.write(b"\0\0\x18\4\0\0\0\0\0\0\4\0\x3f\0\1\0\5\0\n")

    with socketserver.TCPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_a_dashboard_that_answers_strangers_is_refused_and_one_that_asks_for_a_token_is_not() -> None:
    from system.submit.client import check_open

    with dashboard(200) as address:
        with pytest.raises(ClusterError, match="asks for no token"):
            check_open(address, elsewhere=True)
        assert "asks for no token" in (check_open(address, elsewhere=False) or "")
    for status in (401, 403, 503):
        with dashboard(status) as address:
            assert check_open(address, elsewhere=True) is None
    with no_web_server() as address:
        assert check_open(address, elsewhere=True) is None
    assert check_open(address, elsewhere=True) is None  # gone: whoever speaks to it next says so
