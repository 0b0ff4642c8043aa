"""Measure every stage beside what a user would pick instead: `python -m jobs.benchmark decode mask step`.

Prints a table and, as its last line, `reached m of n: below are <names>`. docs/benchmarks/README.md says what each line
is.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from jobs.cli import parser, run, say
from system.benchmark import history
from system.benchmark.line import Line, verdict
from system.benchmark.machine import describe, told
from system.benchmark.stages import STAGES, Asked, measure
from system.benchmark.table import markdown, table
from system.errors import RecipeError

HISTORY = Path("docs/benchmarks/history.jsonl")


def main(arguments: Sequence[str]) -> int:
    """Run the job."""
    options = parser("benchmark", "Each stage's rate, the conventional one, the limit, and what is to be reached.")
    options.add_argument("stages", nargs="*", metavar="stage", help=f"{', '.join(STAGES)} or all (the default)")
    options.add_argument("--videos", default="synthetic", help="folder of videos; default: generated ones")
    options.add_argument("--device", help="torch device of step, mask; default: cuda where there is one, else cpu")
    options.add_argument("--json", metavar="FILE", help="write machine and lines there")
    options.add_argument("--keep", action="store_true", help=f"add the result to {HISTORY}")
    options.add_argument("--check", action="store_true", help="exit with 1 if a line is below what it has to reach")
    options.add_argument("--short", action="store_true", help="as little work as shows that everything runs")
    options.add_argument("--markdown", action="store_true", help="print the table as one of Markdown")
    given = options.parse_args(arguments)
    if given.short and given.keep:
        raise RecipeError("--keep keeps figures, and those of --short mean nothing: give one of the two")
    wanted = _stages(given.stages)
    machine = describe()
    say(told(machine))
    lines: list[Line] = []
    device = given.device or ("cuda" if machine["device"] else "cpu")
    with tempfile.TemporaryDirectory(prefix="tubelet-benchmark-") as scratch:
        asked = Asked(given.videos, scratch, device, given.short, say)
        for stage in wanted:
            say(f"{stage} ...")
            lines += measure(stage, asked)
    say(markdown(lines) if given.markdown else table(lines))
    command = {"videos": "generated" if asked.videos == "synthetic" else "given", "device": asked.device}
    _tell(lines, machine, command)
    entry = history.record(machine, command, lines)
    if given.json:
        Path(given.json).write_text(json.dumps(entry, indent=1) + "\n")
    if given.keep:
        history.keep(HISTORY, entry)
    text, reached = verdict(lines)
    say(text)
    return 1 if given.check and not reached else 0


def _stages(names: Sequence[str]) -> list[str]:
    """Return the stages that are asked for, in their order.

    Raises:
        RecipeError: if one of them does not exist.
    """
    unknown = [name for name in names if name not in (*STAGES, "all")]
    if unknown:
        raise RecipeError(f"no stage is called {', '.join(unknown)}; there are {', '.join(STAGES)} and all")
    return [name for name in STAGES if not names or "all" in names or name in names]


def _tell(lines: Sequence[Line], machine: dict[str, object], command: dict[str, str]) -> None:
    """Say what the lines are, and how they stand to the last such run on such a machine."""
    runs = history.read(HISTORY)
    for line in lines:
        earlier = history.before(runs, machine, command, line)
        change = "" if earlier is None else f" (last kept on such a machine: {earlier:.3g})"
        if line.says or change:
            say(f"{line.stage} {line.name}: {line.says}{change}")


if __name__ == "__main__":
    run(main)
