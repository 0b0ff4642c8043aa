"""What stands on the docs' pictures of terminals."""

from __future__ import annotations

import re
from collections import defaultdict
from xml.etree import ElementTree

from system.report.terminal_picture import CELL_W, MARGIN
from tests.conftest import REPOSITORY

PICTURES = REPOSITORY / "docs" / "pictures"


def lines(name: str) -> list[str]:
    """Return the lines of a picture's terminal, from top to bottom; empty ones are left out."""
    found: dict[float, str] = defaultdict(str)
    for text in ElementTree.parse(PICTURES / name).iter("{http://www.w3.org/2000/svg}text"):
        y, column = float(text.attrib["y"]), round((float(text.attrib["x"]) - MARGIN) / CELL_W)
        found[y] = found[y].ljust(column) + (text.text or "")
    return [line for _, line in sorted(found.items())]


def checks_of_doctor() -> list[str]:
    """Return the checks that the doctor's picture shows."""
    found = [
        re.match(r"  (?:ok|note|WARNING|ERROR) +([a-z-]+(?: [a-z-]+)?)(?:  |$)", line) for line in lines("doctor.svg")
    ]
    return [each[1] for each in found if each is not None]
