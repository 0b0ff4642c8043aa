"""The classes of a fine-tuning run, `classes.json` in its folder: a list of names; a position is a class's number."""

from __future__ import annotations

import json
from collections.abc import Sequence

from system import storage
from system.errors import DataError

FILE = "classes.json"


def write_classes(run_uri: str, names: Sequence[str]) -> None:
    """Keep the names of a run's classes in its folder."""
    storage.write(storage.join(run_uri, FILE), json.dumps(list(names), indent=0, ensure_ascii=False).encode())


def read_classes(run_uri: str) -> tuple[str, ...]:
    """Return the names of a run's classes, by their numbers.

    Raises:
        DataError: if there are none: it is no run of fine-tuning, or its labels are not read yet.
    """
    uri = storage.join(run_uri, FILE)
    try:
        return tuple(str(name) for name in json.loads(storage.read(uri)))
    except storage.MissingError as error:
        raise DataError(f"{uri} is not there: {run_uri} is no run of fine-tuning, or has not begun") from error
    except ValueError as error:
        raise DataError(f"{uri} is not JSON: {error}") from error
