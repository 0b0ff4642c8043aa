"""What is submitted: a command, its environment and its name. Pure, but for reading one YAML file."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from system.access import has_token, is_loopback
from system.errors import RecipeError
from system.recipe import Recipe
from system.recipe_tree import parse_yaml
from system.secret_words import NAME, has_user, kind_of

# Of a job's environment: what stays at home, and how long a stop may take.
RUNTIME_ENV = Path("cluster") / "runtime-env.yaml"


@dataclass(frozen=True, slots=True)
class Order:
    """What is submitted.

    Attributes:
        entrypoint: the command on the cluster.
        runtime_env: as Ray takes it.
        name: of the run for the cluster; submissions of one run share it.
    """

    entrypoint: str
    runtime_env: dict[str, Any]
    name: str


def make_order(recipe: Recipe, recipe_file: str, overrides: Sequence[str], folder: Path) -> Order:
    """Return what is submitted for a recipe.

    Args:
        recipe: validated.
        recipe_file: its file; it travels with the folder.
        overrides: laid over it.
        folder: what is uploaded; the jobs run in a copy of it.

    Raises:
        RecipeError: if the recipe lies outside of the folder, or the runtime environment names a secret.
    """
    folder = folder.resolve()
    path = Path(recipe_file).resolve()
    if not path.is_relative_to(folder):
        raise RecipeError(
            f"{recipe_file} does not lie in {folder}, which is what travels: copy it there, or name --folder"
        )
    command = ["python", "-m", f"jobs.{recipe.job}", "--recipe", str(path.relative_to(folder)), *overrides]
    return Order(shlex.join(command), runtime_env(folder), run_name(recipe))


def runtime_env(folder: Path) -> dict[str, Any]:
    """Return the runtime environment of a job: that of `cluster/runtime-env.yaml`, and the folder.

    Raises:
        RecipeError: if it holds a secret: Ray shows runtime environments to whoever sees the cluster.
    """
    file = folder / RUNTIME_ENV
    if not file.is_file():
        raise RecipeError(f"there is no {file}: --folder is a checkout of this project")
    found = parse_yaml(file.read_text(), str(file)) or {}
    for name, value in (found.get("env_vars") or {}).items():
        if NAME.search(name) or kind_of(str(value)):
            raise RecipeError(
                f"{file} would carry {name} to where everybody on the cluster can read it: give the machines a role,"
                " or set it in their own environment (docs/security.md)"
            )
    return {**found, "working_dir": str(folder)}


def run_name(recipe: Recipe) -> str:
    """Return a run's name for the cluster: the same for the same run, as far as `run.storage` and `run.name` say it."""
    identity = f"{recipe.run.storage.rstrip('/')}/{recipe.run.name}"
    words = re.sub(r"[^A-Za-z0-9-]+", "-", recipe.run.name).strip("-")[:40] or "run"
    return f"tubelet-{words}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"


def submission_id(name: str, number: int) -> str:
    """Return the name of a run's submission by its number, from 1."""
    return f"{name}-{number}"


def number_of(name: str, given: str | None) -> int:
    """Return which submission of a run a name stands for; 0: none of it."""
    found = re.fullmatch(re.escape(name) + r"-([1-9]\d*)", given or "")
    return int(found[1]) if found else 0


def check_address(address: str, environment: Mapping[str, str]) -> str:
    """Refuse a cluster that anybody could submit to, and return the address as Ray takes it.

    Raises:
        RecipeError: if the address is none or holds a secret, or the cluster is not on this machine and no token is
            at hand.
    """
    given = address if "://" in address else f"http://{address}"
    if has_user(given):
        raise RecipeError("--address has something before an @, which would be shown: it is http://host:port")
    host = urlsplit(given).hostname
    if not host or urlsplit(given).scheme not in ("http", "https"):
        raise RecipeError(f"--address is the dashboard's, such as http://127.0.0.1:8265; got {address}")
    if elsewhere(given) and not has_token(environment):
        raise RecipeError(
            f"{address} is not on this machine and there is no token for it: whoever reaches a dashboard without one"
            " can run anything there. Set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH, or make ~/.ray/auth_token, with the"
            " cluster's token, or open a tunnel to it (docs/clusters.md)"
        )
    return given


def elsewhere(address: str) -> bool:
    """Say whether a dashboard is not reached on this machine, so that others may reach it too."""
    return not is_loopback(urlsplit(address).hostname or "")


def told_clear_text(address: str) -> str | None:
    """Return the warning for a dashboard to which the token goes for others to read; None: it does not."""
    if not elsewhere(address) or urlsplit(address).scheme == "https":
        return None
    return f"the token goes to {address} in clear text: a tunnel to it does not show it (docs/clusters.md)"


def told_storage(recipe: Recipe) -> str | None:
    """Return the warning for a run whose folder only one machine of the cluster would have; None: all see it."""
    where = recipe.run.storage
    if where.startswith("s3://"):
        return None
    return (
        f"run.storage={where} is a folder of the machine that the job runs on: name a bucket (s3://...), or a folder"
        " that every machine of the cluster mounts"
    )
