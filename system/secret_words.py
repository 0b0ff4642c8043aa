"""What looks like a secret: names of variables, URIs with a password, keys and tokens of well-known kinds.

Told by form alone, so a secret of no known form passes; nothing here stores or prints one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from system.errors import RecipeError

# A name that says a secret, in any case.
NAME = re.compile(r"(secret|token|password|passwd|credential|access_key|api_?key)", re.IGNORECASE)
# Something before an @ in a URI's authority: `s3://key:secret@bucket`. Neither buckets nor hosts have an @.
_BEFORE_AT = re.compile(r"^[a-z][a-z0-9+.-]*://[^/?#]*@", re.IGNORECASE)
# Signed links: whoever has the link has the right.
_SIGNED = re.compile(r"[?&](x-(amz|goog)-(signature|credential|security-token)|awsaccesskeyid|signature|sig)=", re.I)
# What stores, registries and trackers give out. A value of one kind only: no hashes, which names of runs may have.
_KINDS = re.compile(
    r"(?<![A-Za-z0-9])(?:(?:AKIA|ASIA|GOOG1E)[0-9A-Z]{16,}"
    r"|(?:gh[pousr]_|github_pat_|glpat-|hf_|xox[abprs]-|sk-|eyJ)[A-Za-z0-9_-]{16,})"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY"
)


def has_user(uri: str) -> bool:
    """Say whether a URI names a user, and with it mostly a password, before its host or bucket."""
    return _BEFORE_AT.match(uri.strip()) is not None


def without_user(text: str) -> str:
    """Return a URI, or a sentence with some, for messages: what stands before an @ is left out."""
    return re.sub(r"(?<=://)[^/?#\s]*@", "", text)


def kind_of(text: str) -> str | None:
    """Return what kind of secret a text looks like, in words that do not repeat it; None: of none."""
    if has_user(text):
        return "a user or a key before the @ of a URI"
    if _SIGNED.search(text):
        return "a signed link"
    return "a key or a token" if _KINDS.search(text) else None


def refuse_secrets(tree: Any, where: str) -> None:
    """Refuse a tree of plain values that holds a secret: recipes are stored with their runs, shown and submitted.

    Raises:
        RecipeError: names the key, and never the value.
    """
    for path, value in _texts(tree, ()):
        kind = kind_of(value)
        if kind:
            raise RecipeError(
                f"{where}: {'.'.join(path)} looks like {kind}. A recipe is stored with its run and shown to whoever"
                " sees the cluster: give the machines a role, or set AWS_ACCESS_KEY_ID and its kin in their environment"
                " (docs/security.md)"
            )


def _texts(tree: Any, path: tuple[str, ...]) -> list[tuple[tuple[str, ...], str]]:
    """Return every text of a tree with the keys that lead to it."""
    if isinstance(tree, Mapping):
        return [found for key, value in tree.items() for found in _texts(value, (*path, str(key)))]
    if isinstance(tree, Sequence) and not isinstance(tree, str | bytes):
        return [found for number, value in enumerate(tree) for found in _texts(value, (*path, str(number)))]
    return [(path, tree)] if isinstance(tree, str) else []
