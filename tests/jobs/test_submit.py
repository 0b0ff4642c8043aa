"""A run from a laptop to a cluster behind a token: submitted, followed, stopped midway, submitted again, finished.

Laptop and machines have secrets in their environment, and the laptop some in files. None is seen anywhere afterwards.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from system.train.checkpoint import complete_steps
from system.train.launch import START_NOTHING_AHEAD
from tests.conftest import REPOSITORY, TINY

STEPS = 400
# Variables that hold secrets on laptops and machines.
SECRETS = (
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
    *("WANDB_API_KEY", "HF_TOKEN", "MLFLOW_TRACKING_PASSWORD", "GOOGLE_API_KEY"),
)
# Files of a checkout that hold them.
FILES = (".env", ".env.local", "store.env", "mine.pem", "mine.key", ".aws/credentials", "jobs/auth_token")


def planted(where: str) -> dict[str, str]:
    """Return secrets with values that stand nowhere else."""
    return {name: f"{where}{secrets.token_hex(16)}" for name in SECRETS}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@dataclass(frozen=True)
class Head:
    """A cluster of one machine: what a user knows of it, its folder, and the secrets of its environment."""

    address: str
    token: str
    folder: Path
    secrets: Mapping[str, str]


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """A head on loopback, as an administrator starts it."""
    token, port, own_secrets = secrets.token_hex(32), free_port(), planted("machine")
    env = {
        **own_secrets,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": tempfile.gettempdir(),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
        **START_NOTHING_AHEAD,
    }
    with tempfile.TemporaryDirectory(prefix="tb-", dir="/tmp", ignore_cleanup_errors=True) as scratch:
        command = ["ray", "start", "--head", "--block", "--node-ip-address=127.0.0.1", f"--port={free_port()}"]
        command += ["--dashboard-host=127.0.0.1", f"--dashboard-port={port}", "--num-cpus=6", "--disable-usage-stats"]
        command += [f"--dashboard-agent-listen-port={free_port()}", "--object-store-memory=200000000"]
        with (Path(scratch) / "head.log").open("wb") as log:
            ray = subprocess.Popen(
                [str(Path(sys.executable).parent / command[0]), *command[1:], f"--temp-dir={scratch}"],
                env=env,
                cwd=scratch,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            end = time.monotonic() + 120
            while not _listens(port):
                assert ray.poll() is None, (Path(scratch) / "head.log").read_text()
                assert time.monotonic() < end, (Path(scratch) / "head.log").read_text()
                time.sleep(0.2)
            yield Head(f"http://127.0.0.1:{port}", token, Path(scratch), own_secrets)
        finally:
            own = [psutil.Process(ray.pid), *psutil.Process(ray.pid).children(recursive=True)]
            for each in own:
                if each.is_running():
                    each.kill()
            psutil.wait_procs(own, timeout=30)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@dataclass(frozen=True)
class Laptop:
    """A checkout in a folder of its own, and an environment with nothing in it."""

    folder: Path
    head: Head
    secrets: Mapping[str, str]

    def command(self, *more: str, storage: Path) -> list[str]:
        overrides = [*TINY, f"run.storage={storage}", f"train.steps={STEPS}", "checkpoint.every_steps=100000"]
        overrides += ["resources.num_workers=1", "telemetry.picture_clips=0"]
        recipe = ["--recipe", "jobs/recipes/smoke.yaml", *overrides]
        return [sys.executable, "-m", "jobs.submit", "--address", self.head.address, *recipe, *more]

    def environment(self, token: str | None) -> dict[str, str]:
        known = {"RAY_AUTH_TOKEN": token} if token else {}  # and no mode: a token at hand is sent
        fixed = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "PYTHONUNBUFFERED": "1"}
        return {**fixed, **self.secrets, **known}

    def run(self, command: list[str], token: str | None) -> subprocess.CompletedProcess[str]:
        env = self.environment(token)
        return subprocess.run(
            command, cwd=self.folder, env=env, capture_output=True, text=True, timeout=240, check=False
        )

    def start(self, command: list[str], log: Path) -> subprocess.Popen[bytes]:
        env = self.environment(self.head.token)
        with log.open("wb") as out:
            return subprocess.Popen(command, cwd=self.folder, env=env, stdout=out, stderr=subprocess.STDOUT)


@pytest.fixture
def laptop(tmp_path: Path, head: Head) -> Laptop:
    folder = tmp_path / "elsewhere"
    for name in ("system", "jobs", "cluster"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    own_secrets = planted("laptop")
    for name in FILES:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"{SECRETS[0]}={own_secrets[SECRETS[0]]}\n")
    return Laptop(folder, head, own_secrets)


def told_of_jobs(head: Head) -> bytes:
    """Return what the cluster tells of its jobs: entrypoints, runtime environments, metadata."""
    asked = urllib.request.Request(f"{head.address}/api/jobs/", headers={"Authorization": f"Bearer {head.token}"})
    with urllib.request.urlopen(asked, timeout=60) as answer:
        return bytes(answer.read())


def holding(folder: Path, values: Mapping[str, str]) -> list[str]:
    """Return the files under a folder in which one of these values stands, and its name."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return [
        f"{path}: {name}" for path in files for name, value in values.items() if value.encode() in path.read_bytes()
    ]


def until_told(following: subprocess.Popen[bytes], log: Path, words: str) -> None:
    """Wait until the laptop has been told something."""
    end = time.monotonic() + 240
    while words not in log.read_text():
        assert following.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.2)


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_a_run_is_submitted_followed_stopped_and_finished_by_the_same_command(laptop: Laptop, tmp_path: Path) -> None:
    storage = tmp_path / "runs"
    refused = laptop.run(laptop.command(storage=storage), token=None)
    assert refused.returncode == 2, refused.stderr
    assert "token" in refused.stderr

    log = tmp_path / "first.log"
    following = laptop.start(laptop.command(storage=storage), log)
    until_told(following, log, "starting: smoke")
    status = laptop.run(laptop.command("--status", storage=storage), laptop.head.token)
    assert "RUNNING" in status.stdout, status.stderr
    until_told(following, log, "clips/s")
    stopped = laptop.run(laptop.command("--stop", storage=storage), laptop.head.token)
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    assert following.wait(60) == 143, log.read_text()
    (midway,) = complete_steps(str(storage / "smoke"))
    assert 0 < midway < STEPS

    again = laptop.run(laptop.command("--resume", storage=storage), laptop.head.token)
    assert again.returncode == 0, again.stdout + again.stderr
    assert f"resuming at step {midway}" in again.stdout
    assert max(complete_steps(str(storage / "smoke"))) == STEPS
    words = log.read_text() + again.stdout + stopped.stdout + status.stdout
    assert re.search(r"submitted: tubelet-smoke-\w{8}-1 ", words)
    assert re.search(r"submitted: tubelet-smoke-\w{8}-2 ", words)
    every = {
        "token": laptop.head.token,
        **{f"laptop's {name}": value for name, value in laptop.secrets.items()},
        **{f"machine's {name}": value for name, value in laptop.head.secrets.items()},
    }
    jobs = told_of_jobs(laptop.head)
    assert jobs.count(b"jobs.pretrain") >= 2
    assert not [name for name, value in every.items() if value in words or value.encode() in jobs]
    # The run; Ray's logs; the uploaded package, which is unpacked there.
    assert list(laptop.head.folder.rglob("runtime_resources/**/jobs/pretrain.py"))
    assert list(laptop.head.folder.rglob("logs/job-driver-*.log"))
    assert not holding(storage, every) + holding(laptop.head.folder, every)
