"""The variables that keep a cluster to whoever has them. Ray reads some when it is imported, so this imports nothing."""

from __future__ import annotations

import secrets


def private_cluster() -> dict[str, str]:
    """Return variables for every process of a cluster: a token of its own, and the loopback address everywhere."""
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        # Its name says less than it does: addresses are those of this machine's loopback, also with the switch off
        # elsewhere than on Windows and macOS. Without it a driver asks for the cluster at the machine's outer address.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }
