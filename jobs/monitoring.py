"""Make dashboard, alert rules and the tables of docs/monitoring.md anew: `python -m jobs.monitoring`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jobs.cli import parser, run, say
from system.monitoring.files import DOCS, made, with_tables


def main(arguments: Sequence[str]) -> int:
    """Run the job."""
    options = parser("monitoring", "Make dashboard, alert rules and their tables of what system/monitoring declares.")
    options.add_argument("--folder", default=".", help="a checkout of this project")
    folder = Path(options.parse_args(arguments).folder)
    document = folder / DOCS
    if not document.is_file():
        options.error(f"--folder is a checkout of this project, got {folder}: there is no {DOCS}")
    for name, text in {**made(), DOCS: with_tables(document.read_text())}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        say(str(path))
    return 0


if __name__ == "__main__":
    run(main)
