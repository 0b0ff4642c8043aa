"""Modules that are imported when they are first used.

A laptop validates recipes with pydantic and yaml alone, so the files that hold a method's options and its record must
not import torch. They name their torch modules through `lazy`; type checkers see the ordinary import beside it.
"""

from __future__ import annotations

import importlib
from types import ModuleType


class _LazyModule(ModuleType):
    """Stands for a module until an attribute of it is wanted."""

    def __getattr__(self, name: str) -> object:
        return getattr(importlib.import_module(self.__name__), name)


def lazy(name: str) -> ModuleType:
    """Return a stand-in for the module `name` that imports it at the first attribute access."""
    return _LazyModule(name)
