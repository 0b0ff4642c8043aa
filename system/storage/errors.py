"""What storage says of an object that is not there, or no longer the one that it was."""

from __future__ import annotations

from system.errors import DataError


class MissingError(DataError):
    """No object lies at a URI."""


class ReplacedError(MissingError):
    """The object at a URI is shorter than it was when it was listed."""


class UnsupportedError(DataError):
    """The store does not have what was asked of it, such as writing only where nothing is yet."""
