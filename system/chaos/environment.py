"""The variables that a cluster's processes see. Ray reads some at its import, so nothing here imports it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

# None: the variable is not there.
Variables = Mapping[str, str | None]


def private_cluster() -> dict[str, str | None]:
    """Return variables that keep a cluster to its own processes: a token, and the loopback address everywhere."""
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_AUTH_TOKEN_PATH": None,
        "RAY_ADDRESS": None,
        # Does more than its name says: 0 makes Ray take 127.0.0.1 for this machine's address, on Linux too. Without it
        # a driver looks for a cluster on loopback at the machine's outer address.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }


def set_all(values: Variables) -> None:
    """Set variables of this process, and of what it starts from now on."""
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def merged(values: Variables) -> dict[str, str]:
    """Return this process's environment with these values laid over it."""
    return {name: value for name, value in {**os.environ, **values}.items() if value is not None}


@contextmanager
def environment(values: Variables) -> Iterator[None]:
    """Have these variables for a while."""
    before = {name: os.environ.get(name) for name in values}
    set_all(values)
    try:
        yield
    finally:
        set_all(before)
