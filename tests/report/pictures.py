"""Take the pictures of docs/report.md: `python -m tests.report.pictures --run runs/demo`, after `make demo`."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from tests.conftest import REPOSITORY
from tests.report.browser import Browser, View, chromium

PICTURES = REPOSITORY / "docs" / "pictures"
# A picture of the docs has to be small enough to load at once, bytes.
MOST_BYTES = 200_000


@dataclass(frozen=True)
class Shot:
    """A part of the page: its file, the screen, the element at its top (a CSS selector), and its height in px."""

    name: str
    view: View
    top: str
    height: int


SHOTS = (
    Shot("report-verdict.jpg", View(1180), "body", 900),
    Shot("report-curves.jpg", View(1180), "#curves", 900),
    Shot("report-gallery.jpg", View(1180, dark=True), "#gallery", 1100),
    Shot("report-phone.jpg", View(390), "body", 1500),
)


def main() -> None:
    """Take them."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--run", required=True, help="folder of a run with a report.html")
    page = Path(options.parse_args().run).resolve() / "report.html"
    program = chromium()
    if program is None:
        raise SystemExit("needs Chromium: apt-get install chromium")
    PICTURES.mkdir(exist_ok=True)
    with Browser(program) as browser:
        for shot in SHOTS:
            top = f"document.querySelector('{shot.top}').getBoundingClientRect().top + scrollY"
            seen = browser.see(page.as_uri(), shot.view, whole=True, number=top)
            image = cv2.imdecode(np.frombuffer(seen.picture, np.uint8), cv2.IMREAD_COLOR)
            assert image is not None
            first = math.floor(seen.number)
            write(PICTURES / shot.name, np.asarray(image[first : first + shot.height], np.uint8))


def write(path: Path, image: np.ndarray) -> None:
    """Write a picture as a JPEG, as good as its size allows."""
    for quality in range(90, 30, -5):
        _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
        if len(data) < MOST_BYTES:
            path.write_bytes(data.tobytes())
            return
    raise SystemExit(f"{path} cannot be made smaller than {MOST_BYTES} bytes")


if __name__ == "__main__":
    main()
