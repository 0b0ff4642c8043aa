"""What Prometheus would get of a job that has started a Ray of its own: its node's numbers, read while it runs."""

from __future__ import annotations

import threading
import urllib.request
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from prometheus_client.parser import text_string_to_metric_families

from system.monitoring.series import RAYS

# Ray's processes send their numbers to the node's agent as often as this environment says; 10 s if nothing does.
OFTEN = {"RAY_metrics_report_interval_ms": "2000"}
EVERY_S = 1.0
# Of the hundreds that Ray exports: reading all of them would take a good part of a core.
READ = ("ray_tubelet_", *RAYS)

Labels = tuple[tuple[str, str], ...]


class Scraper:
    """Reads a job's numbers in a thread, as a context.

    Args:
        pid: of the driver.
        sessions: where Ray keeps its sessions.

    Attributes:
        newest: series -> labels -> the newest value.
    """

    def __init__(self, pid: int, sessions: Path = Path("/tmp/ray")) -> None:
        self._pid, self._sessions = pid, sessions
        self.newest: dict[str, dict[Labels, float]] = defaultdict(dict)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._work, name="scraper", daemon=True)

    def __enter__(self) -> Scraper:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end.set()
        self._thread.join()

    def of(self, series: str, label: str) -> dict[str, float]:
        """Return a series' newest values by one of its labels."""
        return {dict(labels).get(label, ""): value for labels, value in self.newest[series].items()}

    def _work(self) -> None:
        while not self._end.wait(EVERY_S):
            for file in self._sessions.glob(f"session_*_{self._pid}/metrics_export_port_*"):
                with suppress(OSError, ValueError):  # the node is not there yet, or no more
                    self._take(int(file.read_text()))

    def _take(self, port: int) -> None:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        wanted = "".join(f"{line}\n" for line in text.splitlines() if line.startswith(READ))
        for family in text_string_to_metric_families(wanted):
            for sample in family.samples:
                self.newest[sample.name][tuple(sorted(sample.labels.items()))] = sample.value
