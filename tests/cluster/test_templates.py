"""The SLURM script does what it says when SLURM does what it does, and the SkyPilot task is what SkyPilot takes.

No package ships SLURM's options: those of the script are compared with a list of sbatch's. The script runs against
stand-ins for srun, scontrol and python. SkyPilot's schema comes with SkyPilot; those tests skip without it.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from system.recipe import load_recipe
from tests.cluster.files import CLUSTER, ROOT, read, rename, slurm_machines

SCRIPT = CLUSTER / "slurm/pretrain.sbatch"
SHELL = {"sky.yaml": read("sky.yaml")["run"], "slurm/pretrain.sbatch": SCRIPT.read_text()}
SHELL["monitoring/start.sh"] = (CLUSTER / "monitoring/start.sh").read_text()
# Of sbatch, the long forms that the script may use.
SBATCH = {
    *("job-name", "partition", "nodes", "ntasks-per-node", "cpus-per-task", "mem", "time", "signal", "requeue"),
    *("open-mode", "output", "gpus-per-node", "account", "qos", "constraint", "exclusive"),
}
STAND_INS = {
    "srun": 'trap "echo step ended >> log; exit 0" TERM; echo "step $*" >> log; while true; do sleep 0.05; done',
    "scontrol": 'echo "scontrol $*" >> log',
    "hostname": "echo head",
    "python": """if [ "$1" = -c ]; then echo a-token; exit; fi
until [ "$(grep -c '^step --' log)" = 3 ]; do sleep 0.02; done
trap 'echo driver saves >> log; sleep 0.3; exit 143' TERM
echo "driver $* token=$RAY_AUTH_TOKEN mode=$RAY_AUTH_MODE address=$RAY_ADDRESS" >> log
[ "${DRIVER_ENDS:-}" ] && exit "$DRIVER_ENDS"
while true; do sleep 0.05; done""",
}


@pytest.mark.parametrize("name", SHELL)
def test_bash_reads_the_scripts(name: str) -> None:
    subprocess.run(["bash", "-n"], input=SHELL[name], text=True, check=True)


@pytest.mark.parametrize("name", SHELL)
def test_shellcheck_finds_nothing(name: str) -> None:
    checker = Path(sys.executable).with_name("shellcheck")
    answer = subprocess.run(
        [checker, "--shell=bash", "-"], input=SHELL[name], text=True, capture_output=True, check=False
    )
    assert not answer.stdout


def test_slurm_options_are_sbatchs() -> None:
    lines = re.findall(r"^#SBATCH (.*)$", SHELL["slurm/pretrain.sbatch"], re.MULTILINE)
    assert lines.count("hetjob") == 1
    assert {re.sub(r"^--([a-z-]+).*$", r"\1", line) for line in lines} - {"hetjob"} <= SBATCH


def test_slurm_steps_count_what_their_nodes_have() -> None:
    text = SHELL["slurm/pretrain.sbatch"]
    cpus = [int(each) for each in re.findall(r"#SBATCH --cpus-per-task=(\d+)", text)]
    gpus = [int(each) for each in re.findall(r"#SBATCH --gpus-per-node=(\d+)", text)]
    *decode, _, train = slurm_machines()
    assert {node["CPU"] for node in decode} == {cpus[0]}
    assert (train["CPU"], train["GPU"], train["train"]) == (cpus[1], gpus[0], gpus[0])


def script(folder: Path, **environment: str) -> subprocess.Popen[bytes]:
    """Start the script where SLURM's commands and the driver are stand-ins that write to a log."""
    for name, body in STAND_INS.items():
        path = folder / name
        path.write_text(f"#!/bin/bash\n{body}\n")
        path.chmod(0o755)
    told = {
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NUM_NODES": "4",
        "SLURM_JOB_NUM_NODES_HET_GROUP_0": "2",
        "HEAD_START_S": "0",
    }
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHON_BIN": str(folder), **told, **environment}
    command = ["bash", str(SCRIPT), "run.storage=/shared/runs", "data.uri=/shared/k400"]
    return subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.DEVNULL)


def log_with(folder: Path, wanted: str) -> str:
    """Wait until a line is in the log, and return the log."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        text = (folder / "log").read_text() if (folder / "log").exists() else ""
        if wanted in text:
            return text
        time.sleep(0.02)
    raise AssertionError(f"{wanted!r} was never written")


def test_slurm_job_whose_time_is_up_saves_and_is_queued_again(tmp_path: Path) -> None:
    job = script(tmp_path)
    log_with(tmp_path, "driver -m jobs.pretrain")
    job.send_signal(signal.SIGTERM)
    assert job.wait(30) == 143
    log = log_with(tmp_path, "scontrol requeue 7")
    assert log.index("driver saves") < log.index("scontrol requeue") < log.index("step ended")
    assert log.count("step ended") == 3


def test_slurm_job_with_a_mistake_in_its_recipe_is_not_queued_again(tmp_path: Path) -> None:
    assert script(tmp_path, DRIVER_ENDS="2").wait(30) == 2
    assert "scontrol" not in (tmp_path / "log").read_text()


def test_slurm_driver_gets_a_recipe_that_loads_and_the_jobs_token(tmp_path: Path) -> None:
    assert script(tmp_path, DRIVER_ENDS="0").wait(30) == 0
    log = (tmp_path / "log").read_text()
    (line,) = [line for line in log.splitlines() if line.startswith("driver")]
    words = line.split()[3:]
    assert words[-3:] == ["token=a-token", "mode=token", "address=head:20007"]
    recipe = load_recipe(ROOT / words[1], words[2:-3])
    assert recipe.run.storage == "/shared/runs"
    assert recipe.resources.worker_resources == {"train": 1}
    assert recipe.resources.decode_resources == {"decode": 1}
    assert log.count("ray start") == 3


def check_sky(task: Any) -> None:
    """Check a task as SkyPilot does before it asks a cloud."""
    schemas = pytest.importorskip("sky.utils.schemas", reason="SkyPilot's schema comes with SkyPilot")
    jsonschema.validate(task, schemas.get_task_schema())
    jsonschema.validate(task["resources"], schemas.get_resources_schema())


def test_skypilot_takes_the_task() -> None:
    check_sky(read("sky.yaml"))


@pytest.mark.parametrize(
    ("path", "typo"), [(["num_nodes"], "num_node"), (["resources", "use_spot"], "use_spt"), (["secrets"], "secret")]
)
def test_skypilot_refuses_a_misspelt_key(path: list[str | int], typo: str) -> None:
    with pytest.raises(jsonschema.ValidationError, match=typo):
        check_sky(rename(read("sky.yaml"), path, typo))


def test_skypilots_token_is_asked_for_and_not_written_down() -> None:
    task = read("sky.yaml")
    assert task["secrets"] == {"RAY_AUTH_TOKEN": None}
    assert task["envs"]["RAY_AUTH_MODE"] == "token"
    assert "ray stop" not in re.sub(r"#.*", "", task["run"])
