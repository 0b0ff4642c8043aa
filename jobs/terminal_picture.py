"""Draw what a command shows on a terminal: `python -m jobs.terminal_picture --out FILE.svg -- python -m jobs.doctor`.

The command has a terminal of its own. Drawn is what stands there at the command's end, or when a line matches --until.
"""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import re
import shlex
import struct
import subprocess
import termios
import textwrap
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path

from jobs.cli import parser, run, say
from system.report.terminal_picture import Screen, svg

# So many rows that everything stays on it.
ROWS = 200


def main(arguments: Sequence[str]) -> int:
    """Run the job."""
    options = parser("terminal_picture", "Draw what a command shows on a terminal, as SVG.")
    options.add_argument("--out", required=True, help="file of the picture")
    options.add_argument("--columns", type=int, default=100, help="of the terminal; default 100")
    options.add_argument("--until", metavar="REGEX", help="draw it as it is when a line matches first, not at its end")
    options.add_argument("--last", type=int, metavar="N", help="draw the last N lines alone, below the command")
    options.add_argument("command", nargs="+", help="after --")
    given = options.parse_args(arguments)
    moments: list[Screen] = []

    def look(screen: Screen) -> None:
        if given.until and not moments and any(re.search(given.until, line) for line in screen.lines):
            moments.append(deepcopy(screen))

    screen = Screen(given.columns)
    code = shown(given.command, screen, {}, look)
    command = shlex.join(given.command)
    head = textwrap.wrap(f"$ {command}", given.columns, subsequent_indent="    ", break_on_hyphens=False)
    drawn = [*moments, screen][0].with_head([*head, ""], given.last)
    Path(given.out).write_text(svg(drawn, f"{command} on a terminal"))
    say(f"{given.out}: {len(drawn.lines)} lines; the command ended with {code}")
    return 0


def shown(
    command: Sequence[str], screen: Screen, environment: Mapping[str, str], look: Callable[[Screen], None]
) -> int:
    """Run a command on a terminal of a screen's width until it ends; return its exit code.

    Args:
        command: and its arguments.
        screen: takes what the command writes.
        environment: added to this process's.
        look: is shown the screen after each piece of output.
    """
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, screen.columns, 0, 0))
    env = {**os.environ, "TERM": "xterm", **environment}
    process = subprocess.Popen(command, stdin=its, stdout=its, stderr=subprocess.STDOUT, env=env)
    os.close(its)
    text = codecs.getincrementaldecoder("utf-8")(errors="replace")
    try:
        while piece := _read(ours):
            screen.feed(text.decode(piece))
            look(screen)
        return process.wait()
    finally:
        os.close(ours)
        if process.poll() is None:
            process.kill()
            process.wait()


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 1 << 16)
    except OSError:  # the last process that had the terminal has ended
        return b""


if __name__ == "__main__":
    run(main)
