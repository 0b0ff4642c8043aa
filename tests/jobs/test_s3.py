"""Everything over S3: what a wrong address says, and a run submitted from a laptop whose every byte is in a bucket."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from math import isfinite
from pathlib import Path

import pytest

from jobs import pretrain
from jobs.cli import run
from system import storage
from system.data.assemble import local_blocks
from system.data.classes import read_classes
from system.data.dataset import ensure_index, ensure_labels, run_uri
from system.data.index import Index
from system.storage import retry, s3
from system.train.checkpoint import latest
from system.train.launch import START_NOTHING_AHEAD
from system.train.telemetry import read_metrics
from tests.conftest import RECIPES, REPOSITORY, TINY
from tests.jobs.pictures import rows_of_images
from tests.jobs.processes import environment, job
from tests.small import labelled_recipe, stream_spec
from tests.train.recorded import keep_recipe

SMOKE = str(RECIPES / "smoke.yaml")
KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket, for this process too."""
    for key, value in {**KEYS, "AWS_ENDPOINT_URL": endpoint}.items():
        monkeypatch.setenv(key, value)
    forget_client()
    s3.client().create_bucket(Bucket="videos-and-runs")
    yield "s3://videos-and-runs"
    forget_client()


def forget_client() -> None:
    s3._client.cache_clear()


def refusal(capsys: pytest.CaptureFixture[str], *overrides: str) -> str:
    """Start a run that has to be refused, and return the sentence."""
    with pytest.raises(SystemExit) as ended:
        run(pretrain.main, ["--recipe", SMOKE, *TINY, *overrides])
    error = capsys.readouterr().err
    assert ended.value.code == 2, error
    assert error.count("\n") == 1, error
    return error


def test_a_missing_bucket_and_an_empty_prefix_are_named(
    bucket: str, endpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = f"run.storage={tmp_path}/runs"
    assert f"there is no bucket not-there at {endpoint}" in refusal(capsys, where, "data.uri=s3://not-there/videos")
    assert f"{bucket}/nothing" in refusal(capsys, where, f"data.uri={bucket}/nothing")
    assert "not-there" in refusal(capsys, "run.storage=s3://not-there/runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_weights_of_every_kind_are_read_from_a_bucket(bucket: str, tmp_path: Path) -> None:
    import torch

    from system.models.weight_files import our_metadata, write_weights
    from system.models.weights import to_hugging_face
    from system.train.warm_start import read_any
    from tests.models.test_weights import same, state

    torch.save({"model": state()}, tmp_path / "released.pth")
    storage.upload(tmp_path / "released.pth", f"{bucket}/released.pth")
    write_weights(f"{bucket}/ours.safetensors", state(), our_metadata((3, 3)))
    write_weights(f"{bucket}/theirs/model.safetensors", to_hugging_face(state()), {"format": "pt"})
    storage.write(f"{bucket}/theirs/config.json", b'{"model_type": "videomae"}')
    for name in ("released.pth", "ours.safetensors", "theirs", "theirs/"):
        assert same(dict(read_any(f"{bucket}/{name}").tensors), state())


@pytest.mark.slow
def test_the_labels_of_a_run_are_kept_in_its_bucket(bucket: str) -> None:
    videos, few = "data.uri=synthetic://moving?videos=6&frames=8&height=48&width=48", "train.global_batch=4"
    recipe = labelled_recipe(f"{bucket}/labelled", videos, few)
    listed = "".join(f"{row.name},{number % 2}\n" for number, row in enumerate(Index(ensure_index(recipe))))
    storage.write(f"{bucket}/list.csv", listed.encode())
    recipe = labelled_recipe(f"{bucket}/labelled", videos, few, f"method.labels={bucket}/list.csv")
    assert read_classes(run_uri(recipe)) == ("0", "1")
    keep_recipe(recipe)
    assert ensure_labels(recipe) == recipe
    rows = next(iter(local_blocks(stream_spec(recipe, 1, last_step=1), 0, 0)))
    assert rows["label"].tolist() == [int(video) % 2 for video in rows["video_id"]]


@pytest.mark.slow
def test_a_wrong_endpoint_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = f"http://127.0.0.1:{free_port()}"
    for key, value in {**KEYS, "AWS_ENDPOINT_URL": wrong}.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(retry, "FIRST_PAUSE_S", 0.01)
    forget_client()
    assert wrong in refusal(capsys, f"run.storage={tmp_path}/runs", "data.uri=s3://bucket/videos")


def test_a_wrong_credential_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with refusing_server() as wrong:
        for key, value in {**KEYS, "AWS_ENDPOINT_URL": wrong}.items():
            monkeypatch.setenv(key, value)
        forget_client()
        error = refusal(capsys, f"run.storage={tmp_path}/runs", "data.uri=s3://bucket/videos")
    assert f"{wrong} refused the credentials (InvalidAccessKeyId)" in error
    forget_client()


@contextmanager
def refusing_server() -> Iterator[str]:
    """A server that says of every key that it does not know it, as AWS does."""

    class Refuse(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b"<Error><Code>InvalidAccessKeyId</Code><Message>The key does not exist.</Message></Error>"
            self.send_response(403)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Refuse)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@contextmanager
def head(env: dict[str, str]) -> Iterator[str]:
    """Start a Ray head on loopback as `ray start` does, and stop it by its own process."""
    port, dashboard = free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="h", dir="/tmp", ignore_cleanup_errors=True) as folder:
        ray = str(Path(sys.executable).parent / "ray")
        ports = [f"--port={port}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={free_port()}"]
        ports += [f"--dashboard-agent-listen-port={free_port()}"]
        options = ["--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", f"--temp-dir={folder}", "--num-cpus=8"]
        command = [ray, "start", "--head", "--block", *ports, *options, "--object-store-memory=300000000"]
        with (Path(folder) / "head.log").open("wb") as log:
            process = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
        address = f"http://127.0.0.1:{dashboard}"
        try:
            wait_until(lambda: answers(dashboard) and process.poll() is None)
            yield address
        finally:
            process.terminate()
            process.wait(60)


def answers(port: int) -> bool:
    from urllib.error import URLError
    from urllib.request import urlopen

    try:
        with urlopen(f"http://127.0.0.1:{port}/api/jobs/", timeout=5) as reply:
            return bool(reply.status == 200)
    except (URLError, OSError):
        return False


def wait_until(done: Callable[[], bool], timeout_s: float = 60) -> None:
    end = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < end, "the head does not answer"
        time.sleep(0.3)


@pytest.mark.ray
def test_a_run_submitted_from_a_laptop_has_everything_in_the_bucket(bucket: str, endpoint: str, tmp_path: Path) -> None:
    env = {**KEYS, "AWS_ENDPOINT_URL": endpoint}
    size = ["--frames", "16", "--height", "48", "--width", "48"]
    with job("jobs.make_videos", "--out", f"{bucket}/videos", "--videos", "16", *size, **env) as videos:
        assert f"16 videos: {bucket}/videos/index.parquet" in videos.wait()
    short = ["--layout", "short-gop", "--short-side", "48", "--videos-per-shard", "4"]
    with job(
        "jobs.make_shards", "--data", f"{bucket}/videos/index.parquet", "--out", f"{bucket}/shards", *short, **env
    ) as shards:
        assert f"16 videos, 0 left out: {bucket}/shards/index.parquet" in shards.wait()
    home = tmp_path / "home"
    home.mkdir()
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    ahead = {"RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0", **START_NOTHING_AHEAD}
    cluster = environment(PATH=path, HOME=str(home), **ahead, **env)
    laptop = environment(PATH=path, HOME=str(home))  # no credentials: the cluster has them
    given = ["--recipe", "jobs/recipes/smoke.yaml", *TINY, "resources.num_workers=2"]
    given += [
        "run.name=submitted",
        f"run.storage={bucket}/runs",
        f"data.uri={bucket}/shards",
        "telemetry.tensorboard=true",
        # A tokenizer is fitted first, and both its codes and flow reach the trainers.
        "method.name=mam2",
        "method.codes=16",
        "method.motion_target=flow",
    ]
    with head(cluster) as address:
        submit = ["ray", "job", "submit", "--address", address, "--working-dir", ".", "--"]
        done = subprocess.run(
            [*submit, "python", "-m", "jobs.pretrain", *given],
            cwd=REPOSITORY,
            env=laptop,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "complete: step 8 of 8, 128 clips of 16 videos" in done.stdout
    assert "Traceback" not in done.stdout
    folder = f"{bucket}/runs/submitted"
    found = latest(folder)
    assert found is not None
    assert (found.step, found.state["ranks"]) == (8, 2)
    assert found.state["index_uri"] == f"{bucket}/shards/index.parquet"
    assert Index(f"{bucket}/shards/index.parquet").row(0).uri.endswith(".tar")
    rows = read_metrics(folder)
    assert [row["step"] for row in rows] == list(range(8))
    assert all(isfinite(row["loss"]) for row in rows)
    outputs = json.loads(storage.read(f"{folder}/summary.json"))["outputs"]
    outputs["checkpoint"] += "/manifest.json"
    for uri in (*outputs.values(), f"{folder}/recipe.yaml", f"{folder}/tokenizer.safetensors"):
        assert uri.startswith(bucket)
        assert storage.exists(uri)
    assert rows_of_images(outputs["picture"]) == 5
    assert list(storage.list_objects(f"{folder}/tensorboard"))
    assert not list(home.rglob("*.safetensors"))
