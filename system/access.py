"""Who may use a cluster: the token that Ray asks for, where it is found, and where nothing is sent without one.

Needs nothing but Python, so that a laptop submits with it.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from system.errors import ClusterError

MODE, TOKEN, TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"


def is_loopback(host: str) -> bool:
    """Say whether a host is this machine, reached by nobody else."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def own_token(environment: Mapping[str, str]) -> Path:
    """Return where Ray keeps a user's token."""
    return Path(environment.get("HOME") or os.path.expanduser("~")) / ".ray" / "auth_token"  # noqa: PTH111


def has_token(environment: Mapping[str, str]) -> bool:
    """Say whether Ray would find a token to send."""
    if environment.get(MODE, "").lower() == "disabled":
        return False
    if environment.get(TOKEN):
        return True
    path = environment.get(TOKEN_PATH)
    return Path(path).is_file() if path else own_token(environment).is_file()


def send_token(environment: MutableMapping[str, str]) -> None:
    """Have Ray send a token where one is at hand; unless told, it sends none. Before Ray is imported."""
    if has_token(environment):
        environment.setdefault(MODE, "token")


def check_cluster(address: str, environment: Mapping[str, str]) -> None:
    """Refuse a cluster on other machines to which no token is sent: whoever reaches it could run anything there.

    To an address that is named Ray sends a token only where the mode says so.

    Args:
        address: host:port, with or without `ray://`; `auto`: that of RAY_ADDRESS, else the cluster of this machine.
        environment: of this process; `RAY_AUTH_MODE=disabled` is the user's word that it is meant so.

    Raises:
        ClusterError: if the cluster is not on this machine and no token goes there.
    """
    if address == "auto":
        address = environment.get("RAY_ADDRESS") or address  # Ray prefers it too
        if address == "auto":
            return
    host = urlsplit(address if "://" in address else f"ray://{address}").hostname
    mode = environment.get(MODE, "").lower()
    if host is None or is_loopback(host) or mode == "disabled" or (mode == "token" and has_token(environment)):
        return
    raise ClusterError(
        f"the cluster at {address} is not on this machine and no token is sent to it: whoever reaches a cluster that"
        f" asks for none can run anything there. Set {MODE}=token, and {TOKEN} or {TOKEN_PATH} or ~/.ray/auth_token to"
        f" the cluster's token; if it has none, and a wall around it instead, say so with {MODE}=disabled"
    )


def make_token(environment: Mapping[str, str]) -> None:
    """Make a token for clusters that this user starts, unless there is one, and keep it from other users.

    Ray would make it too, with the rights that the umask leaves: commonly for all users of the machine to read.

    Raises:
        ClusterError: if it cannot be written.
    """
    if environment.get(MODE, "token").lower() != "token" or environment.get(TOKEN) or environment.get(TOKEN_PATH):
        return
    path = own_token(environment)
    if not path.exists():
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with suppress(FileExistsError):  # another job was quicker
                _create(path, secrets.token_hex(32))
        except OSError as error:
            raise ClusterError(
                f"a cluster of this machine asks for a token, and none can be written to {path}:"
                f" {error.strerror or error}; set HOME to a folder of yours, or {TOKEN}, or {MODE}=disabled where"
                " nobody else is on the machine"
            ) from error
    with suppress(OSError):  # somebody else's, which this user was given to read, or on a mount for reading
        path.chmod(0o600)


def _create(path: Path, text: str) -> None:
    """Write a file for its owner alone, whole from the first, where the file system has links.

    Raises:
        FileExistsError: if it is there.
    """
    handle, beside = tempfile.mkstemp(dir=path.parent)  # for its owner alone
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        try:
            os.link(beside, path)
        except FileExistsError:
            raise
        except OSError:
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(text)
    finally:
        Path(beside).unlink()
