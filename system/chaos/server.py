"""An S3 server on this machine with a proxy before it that breaks requests, in a process of their own.

    python -m system.chaos.server FAULTS_JSON SEED

Prints the two addresses as JSON, serves until its standard input ends, which it does when its parent does, and prints
what it broke. Everything is kept in memory.
"""

from __future__ import annotations

import json
import logging
import select
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, Self

from system.errors import RecipeError, SystemFault
from system.storage.fault_proxy import FaultProxy

# How a share of broken requests is divided: kind -> part.
MIX = {"error500": 0.25, "error503": 0.25, "reset": 0.2, "short": 0.2, "slow": 0.1}
# A pause that a client survives, seconds.
SLOW_S = 2.0
START_S = 120.0
STOP_S = 10.0
BUCKET = "chaos"
# Of nobody: the server takes any.
KEYS = {
    "AWS_ACCESS_KEY_ID": "chaos",
    "AWS_SECRET_ACCESS_KEY": "chaos",
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
# What would lead a client to another server, or to other keys.
FOREIGN = (
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_SESSION_TOKEN",
    "AWS_ENDPOINT_URL_S3",
    "AWS_DEFAULT_REGION",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
)


def shares(amount: float) -> dict[str, float]:
    """Divide a share of broken requests among the kinds of faults."""
    return {kind: amount * part for kind, part in MIX.items()}


def serve(faults: Mapping[str, float], seed: int) -> None:
    """Serve until standard input ends."""
    from moto.server import ThreadedMotoServer  # noqa: PLC0415  of an extra

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with FaultProxy(f"http://{host}:{port}", faults, seed, slow_s=SLOW_S) as proxy:
        print(json.dumps({"server": f"http://{host}:{port}", "proxy": proxy.url}), flush=True)  # noqa: T201
        sys.stdin.read()
        print(json.dumps({"requests": proxy.requests, "broken": proxy.injected}), flush=True)  # noqa: T201
    server.stop()


class FaultyStore:
    """The server from its parent's side.

    Args:
        amount: share of the requests that are broken.
        seed: of the draws.

    Raises:
        RecipeError: if moto is not installed.
    """

    def __init__(self, amount: float, seed: int) -> None:
        if find_spec("moto") is None or find_spec("flask") is None:
            raise RecipeError(
                "--s3-errors starts a local S3 server, moto, which is not installed: pip install 'tubelet[chaos]'"
            )
        self._command = [sys.executable, "-m", "system.chaos.server", json.dumps(shares(amount)), str(seed)]
        self._process: subprocess.Popen[str] | None = None
        self.server = self.proxy = ""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        try:
            told = self._line(START_S)
        except BaseException:
            self._process.kill()
            raise
        self.server, self.proxy = told["server"], told["proxy"]
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> dict[str, Any] | None:
        """End the server and return how many requests it had and which of them it broke; None if it is gone."""
        process = self._process
        if process is None:
            return None
        assert process.stdin is not None
        try:
            process.stdin.close()
            return self._line(STOP_S)
        except (SystemFault, OSError):
            return None
        finally:
            self._process = None
            process.kill()
            process.wait()

    def _line(self, within_s: float) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], within_s)
        line = self._process.stdout.readline() if ready else ""
        if not line:
            raise SystemFault(f"the local S3 server did not answer within {within_s:.0f} s")
        told: dict[str, Any] = json.loads(line)
        return told

    @property
    def pid(self) -> int:
        """The server's process."""
        return self._process.pid if self._process else 0

    @property
    def broken(self) -> dict[str, str | None]:
        """Return the variables of a client whose requests are broken."""
        return {**dict.fromkeys(FOREIGN), **KEYS, "AWS_ENDPOINT_URL": self.proxy}

    @property
    def whole(self) -> dict[str, str | None]:
        """Return the variables of a client whose requests are not."""
        return {**self.broken, "AWS_ENDPOINT_URL": self.server}


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]), int(sys.argv[2]))
