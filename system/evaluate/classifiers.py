"""A classifier of a fine-tuned run, or of a file of weights: its classes, and the network with its weights."""

from __future__ import annotations

import json

import torch
from torch import nn

from system import storage
from system.errors import DataError, RecipeError, WeightsError
from system.evaluate.encoders import Source, take_encoder
from system.methods.classify import ClassifyOptions
from system.models.heads import HEAD
from system.models.weight_files import Weights
from system.recipe import Recipe
from system.train.judging import build_model
from system.train.warm_start import read_any


def class_list(uri: str) -> tuple[str, ...]:
    """Return the names in a JSON list, by their numbers.

    Raises:
        DataError: if it is none, or names a class twice.
    """
    try:
        found = json.loads(storage.read(uri))
    except storage.MissingError as error:
        raise DataError(f"{uri}: there is no such list of classes") from error
    except ValueError as error:
        raise DataError(f"{uri} is not JSON ({error}); classes are a JSON list of names") from error
    if not isinstance(found, list) or not found:
        raise DataError(f"{uri}: classes are a JSON list of names, in the order of their numbers")
    names = tuple(str(name) for name in found)
    if len(set(names)) < len(names):
        twice = sorted(name for name in set(names) if names.count(name) > 1)
        raise DataError(f"{uri} names {len(twice)} classes twice, such as {twice[0]}; each has one number")
    return names


def classes_of(source: Source, listed: tuple[str, ...] | None = None) -> tuple[str, ...]:
    """Return the names of a classifier's classes, by their numbers.

    Args:
        source: of its weights.
        listed: names for weights that say none. Where nothing says them, a class is called by its number.

    Raises:
        RecipeError: if the recipe is of pre-training.
        WeightsError: if the weights have no head, one of another number of classes, or other names than are listed.
    """
    if not isinstance(source.recipe.method, ClassifyOptions):
        raise RecipeError(
            f"{source.weights} is of method.name={source.recipe.method.name}, which knows no classes; evaluate a"
            " fine-tuned run (`python -m jobs.finetune`), or name the recipe of fine-tuning"
        )
    weights = read_any(source.weights)
    count, said = _head_size(weights), source.recipe.method.classes
    if said not in (None, count):
        raise WeightsError(
            f"{weights.uri} has a head of {count} classes, the recipe says method.classes={said}; leave that out, or"
            " name the recipe that the weights were trained with"
        )
    names = listed or weights.classes or tuple(str(number) for number in range(count))
    if len(names) != count:
        raise WeightsError(
            f"{weights.uri} has a head of {count} classes, and {len(names)} are named; give the list that it was"
            " trained with"
        )
    if listed and weights.classes and tuple(weights.classes) != listed:
        number = next(place for place, name in enumerate(weights.classes) if name != listed[place])
        raise WeightsError(
            f"{weights.uri} calls its class {number} {weights.classes[number]!r}, and the list {listed[number]!r};"
            " leave --classes out, which is for weights that say no names"
        )
    return names


def _head_size(weights: Weights) -> int:
    if HEAD not in weights.tensors:
        raise WeightsError(f"{weights.uri} has no {HEAD}: it is no classifier; fine-tune it first")
    return len(weights.tensors[HEAD])


def load_classifier(recipe: Recipe, uri: str, classes: int) -> nn.Module:
    """Return a classifier with its weights, in host memory.

    Args:
        recipe: of fine-tuning.
        uri: of the weights.
        classes: of its head.

    Raises:
        WeightsError: if the weights cannot be read or do not fit.
    """
    method = recipe.method.model_copy(update={"classes": classes})
    model = build_model(recipe.model_copy(update={"method": method}), torch.device("cpu"))
    weights = read_any(uri)
    assert isinstance(model.encoder, nn.Module)
    take_encoder(recipe, weights, model.encoder)
    top = {name: value for name, value in model.state_dict().items() if not name.startswith("encoder.")}
    wrong = [
        f"{name} {list(value.shape)}"
        for name, value in top.items()
        if name not in weights.tensors or weights.tensors[name].shape != value.shape
    ]
    if wrong:
        raise WeightsError(f"{weights.uri}: a classifier of {classes} classes needs {', '.join(wrong)}")
    model.load_state_dict({name: weights.tensors[name] for name in top}, strict=False)
    return model.requires_grad_(False).eval()
