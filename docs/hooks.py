"""For the site: links that leave the documentation, to source files, become their text: the site has pages only."""

from __future__ import annotations

import posixpath
import re
from typing import Any

_LINK = re.compile(r"\[([^\]]+)\]\(([^)#\s]+)(#[^)\s]*)?\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Take the links out of a page that lead out of docs/ or to a folder of it."""
    folder = posixpath.dirname(page.file.src_uri)

    def told(found: re.Match[str]) -> str:
        text, target = found[1], found[2]
        if "://" in target:
            return found[0]
        path = posixpath.normpath(posixpath.join(folder, target))
        return text if path.startswith("..") else found[0]

    return _LINK.sub(told, markdown)
