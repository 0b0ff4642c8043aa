"""The recipe that a run's folder keeps. Without torch, so that who only reads about a run does not wait for it."""

from __future__ import annotations

from system import storage
from system.errors import WeightsError
from system.recipe import Recipe, recipe_from
from system.recipe_tree import parse_yaml


def run_recipe(run: str) -> Recipe:
    """Return the recipe that a run's folder keeps.

    Raises:
        WeightsError: if there is none.
    """
    uri = storage.join(run, "recipe.yaml")
    try:
        return recipe_from(parse_yaml(storage.read(uri).decode(), uri), uri)
    except storage.MissingError as error:
        raise WeightsError(f"{run} is no run's folder: there is no recipe.yaml in it") from error


def recipe_there(run: str) -> Recipe:
    """Return the recipe of a run with its place made that of the folder, which may have been copied since.

    Raises:
        WeightsError: if there is none.
    """
    recipe = run_recipe(run)
    folder, _, name = run.rpartition("/")
    return recipe.model_copy(update={"run": recipe.run.model_copy(update={"storage": folder, "name": name})})
