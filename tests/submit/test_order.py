"""What is submitted, under which name, and where nothing is."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest

from system.errors import RecipeError
from system.recipe import Recipe, load_recipe
from system.submit.order import (
    check_address,
    make_order,
    number_of,
    run_name,
    submission_id,
    told_clear_text,
    told_storage,
)
from tests.conftest import REPOSITORY

SMOKE = str(REPOSITORY / "jobs" / "recipes" / "smoke.yaml")


def recipe(*overrides: str) -> Recipe:
    return load_recipe(SMOKE, list(overrides))


def folder(tmp_path: Path, variables: Sequence[str] = ()) -> Path:
    (tmp_path / "cluster").mkdir()
    lines = "".join(f'  {name}: "x"\n' for name in ("RAY_JOB_STOP_WAIT_TIME_S", *variables))
    (tmp_path / "cluster" / "runtime-env.yaml").write_text(f"env_vars:\n{lines}")
    (tmp_path / "mine.yaml").write_text("run:\n  name: mine\n")
    return tmp_path


def test_the_command_names_the_recipe_within_the_folder_that_travels() -> None:
    order = make_order(recipe(), SMOKE, ["run.name=a b"], REPOSITORY)
    wanted = ["python", "-m", "jobs.pretrain", "--recipe", "jobs/recipes/smoke.yaml", "run.name=a b"]
    assert shlex.split(order.entrypoint) == wanted
    assert order.runtime_env["working_dir"] == str(REPOSITORY)
    assert float(order.runtime_env["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"]) >= 30
    assert ".venv" in order.runtime_env["excludes"]


def test_a_recipe_outside_of_the_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="does not lie in"):
        make_order(recipe(), SMOKE, [], folder(tmp_path))


def test_a_folder_without_the_environment_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("")
    with pytest.raises(RecipeError, match=r"runtime-env\.yaml"):
        make_order(recipe(), str(tmp_path / "mine.yaml"), [], tmp_path)


@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "WANDB_API_KEY", "RAY_AUTH_TOKEN", "my_password"])
def test_a_secret_does_not_travel_in_the_runtime_environment(tmp_path: Path, name: str) -> None:
    here = folder(tmp_path, [name])
    with pytest.raises(RecipeError, match=name):
        make_order(recipe(), str(here / "mine.yaml"), [], here)


def test_a_value_that_is_a_secret_does_not_travel_either(tmp_path: Path) -> None:
    here = folder(tmp_path)
    with (here / "cluster" / "runtime-env.yaml").open("a") as file:
        file.write(f'  ENDPOINT: "https://me:{"hidden" * 3}@store"\n')
    with pytest.raises(RecipeError, match="ENDPOINT") as error:
        make_order(recipe(), str(here / "mine.yaml"), [], here)
    assert "hidden" not in str(error.value)


def test_submissions_of_one_run_share_its_name_and_are_numbered() -> None:
    here, there = recipe("run.storage=s3://a/runs"), recipe("run.storage=s3://b/runs")
    assert run_name(here) == run_name(recipe("run.storage=s3://a/runs/", "train.steps=7"))
    assert run_name(here) != run_name(there)
    assert run_name(recipe("run.name=what.ever_it-is")).startswith("tubelet-what-ever-it-is-")
    name = run_name(here)
    assert number_of(name, submission_id(name, 12)) == 12
    for other in (None, "", name, f"{name}-0", f"{name}-x", f"{name}-1-1", submission_id(run_name(there), 1)):
        assert number_of(name, other) == 0


@pytest.mark.parametrize("address", ["http://127.0.0.1:8265", "localhost:8265", "http://[::1]:8265"])
def test_a_tunnel_needs_no_token_of_ours(address: str) -> None:
    assert check_address(address, {"RAY_AUTH_MODE": "disabled"}).startswith("http://")


def test_a_cluster_that_is_not_here_needs_a_token(tmp_path: Path) -> None:
    address = "http://head.example.com:8265"
    nothing = {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "none")}
    with pytest.raises(RecipeError, match="token"):
        check_address(address, nothing)
    with pytest.raises(RecipeError, match="token"):
        check_address(address, {"RAY_AUTH_TOKEN": "x", "RAY_AUTH_MODE": "disabled"})
    assert check_address(address, {"RAY_AUTH_TOKEN": "x"}) == address
    (tmp_path / "token").write_text("x")
    assert check_address(address, {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}) == address


def test_a_token_that_would_travel_in_clear_text_is_told() -> None:
    assert "clear text" in (told_clear_text("http://head.example.com:8265") or "")
    assert told_clear_text("https://head.example.com") is None
    assert told_clear_text("http://127.0.0.1:8265") is None


def test_an_address_with_a_password_is_refused_and_not_shown() -> None:
    with pytest.raises(RecipeError, match="before an @") as error:
        check_address("http://me:hidden@127.0.0.1:8265", {"RAY_AUTH_TOKEN": "x"})
    assert "hidden" not in str(error.value)


@pytest.mark.parametrize("address", ["ray://head:10001", "ftp://x", "http://"])
def test_what_is_no_dashboard_is_refused(address: str) -> None:
    with pytest.raises(RecipeError, match="--address"):
        check_address(address, {"RAY_AUTH_TOKEN": "x"})


def test_a_run_that_one_machine_alone_would_have_is_told() -> None:
    assert "bucket" in (told_storage(recipe()) or "")
    assert told_storage(recipe("run.storage=s3://a/runs")) is None
