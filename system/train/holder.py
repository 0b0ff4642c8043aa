"""Who this process is among all machines, and whether another process of this machine still lives."""

from __future__ import annotations

import getpass
import json
import os
import socket
from contextlib import suppress
from pathlib import Path

from system.train.claims import Process

# Set by Ray in the driver of a submitted job.
_SUBMITTED = "RAY_JOB_CONFIG_JSON_ENV_VAR"


def this_process() -> Process:
    """Return who we are."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = str(os.getuid())
    boot, namespace = "", ""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = str(Path("/proc/self/ns/pid").readlink())
    return Process(user, socket.gethostname(), boot, namespace, os.getpid(), _started(os.getpid()) or "", _job())


def lives(process: Process) -> bool:
    """Say whether a process of this machine and of our process namespace still lives; if in doubt, it does."""
    try:
        os.kill(process.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        pass
    started = _started(process.pid)
    return started is None or started == process.started


def _started(pid: int) -> str | None:
    """Return when a process started, in ticks since the machine did; "" if it is dead, None if that cannot be seen."""
    try:
        # After the name, which may hold spaces and brackets: state, then 18 fields, then the start.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return "" if fields[0] in "ZX" else fields[19]


def _job() -> str:
    with suppress(ValueError, AttributeError):
        return str(json.loads(os.environ.get(_SUBMITTED, "{}")).get("metadata", {}).get("job_submission_id", ""))
    return ""
