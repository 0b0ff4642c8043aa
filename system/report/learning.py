"""The learning check as tables: from plain values to Markdown that can be pasted into docs/results.md."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

Values = Mapping[str, Any]
UNTRAINED = "untrained"


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and sample standard deviation; the latter is nan for one value."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, math.nan
    return mean, math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))


def told(values: Sequence[float]) -> str:
    """Write shares as percentages, mean and spread: 41.3 +- 1.2."""
    mean, deviation = spread([100 * value for value in values])
    return f"{mean:.1f}" if math.isnan(deviation) else f"{mean:.1f} +- {deviation:.1f}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a Markdown table's lines."""
    return [
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def by_method(trials: Sequence[Values]) -> dict[str, list[Values]]:
    """Group trials by method, in the order of their first trial."""
    out: dict[str, list[Values]] = {}
    for trial in trials:
        out.setdefault(trial["method"], []).append(trial)
    return out


def accuracy_rows(trials: Sequence[Values], score: str) -> list[list[str]]:
    """Return a row for each method: its accuracy after each number of clips, and its lead over random weights."""
    groups = by_method(trials)
    counts = sorted({point["clips"] for trial in trials for point in trial["points"]} - {0})
    base = {trial["seed"]: trial["points"][0][score] for trial in groups.get(UNTRAINED, ())}
    rows = []
    for name, group in groups.items():
        cells = []
        for count in counts:
            found = [point[score] for trial in group for point in trial["points"] if point["clips"] in (count, 0)]
            cells.append(told(found) if found and (name != UNTRAINED or count == counts[-1]) else "")
        leads = [trial["points"][-1][score] - base[trial["seed"]] for trial in group if trial["seed"] in base]
        rows.append([name, *cells, told(leads) if leads and name != UNTRAINED else ""])
    return rows


def sweep_rows(trials: Sequence[Values], longer: int) -> list[list[str]]:
    """Return a row for each start of fine-tuning: its accuracy at each learning rate, and the best of them.

    Args:
        trials: of all methods and seeds.
        longer: how many times as long they were trained besides.
    """
    rows = []
    for name, group in by_method(trials).items():
        for key, words in (("swept", name), ("swept_longer", f"{name}, {longer} times as long")):
            cells = {rate: [trial[key][rate] for trial in group] for rate in group[0][key]}
            best = max(cells, key=lambda rate: spread(cells[rate])[0])
            rows.append([words, *(told(found) for found in cells.values()), f"{told(cells[best])} at {best}"])
    return rows


def loss_rows(trials: Sequence[Values]) -> list[list[str]]:
    """Return a row for each method and part of its loss: at the start, at the end, and the share of hidden tokens."""
    rows = []
    for name, group in by_method(trials).items():
        for number, part in enumerate(group[0].get("losses", {})):
            first, last = (spread([trial["losses"][part][side] for trial in group])[0] for side in (0, 1))
            motion = (group[0]["motion"] or "") if number == 0 else ""
            leaks = told([trial["leakage"] for trial in group]) if number == 0 else ""
            seconds = f"{spread([trial['pretraining_cpu_s'] for trial in group])[0]:.0f}" if number == 0 else ""
            rows.append([name if number == 0 else "", part, f"{first:.4g}", f"{last:.4g}", motion, leaks, seconds])
    return rows


def markdown(result: Values) -> str:
    """Return the report of a check.

    Args:
        result: `trials`, `settings`, `leakage` (name, share), `raw_pixels`, `labels`, `command`, `commit`, `machine`,
            `seconds`.
    """
    trials = result["trials"]
    counts = sorted({point["clips"] for trial in trials for point in trial["points"]} - {0})
    head = ["method", *(f"{count:,} clips" for count in counts), "lead over untrained"]
    seeds = sorted({trial["seed"] for trial in trials})
    return "\n".join(
        [
            f"`{result['command']}`, {result['machine']}, {result['commit']}; {result['seconds'] / 60:.0f} min;"
            f" seeds {', '.join(str(seed) for seed in seeds)}.",
            "",
            f"Test accuracy in percent, mean and standard deviation over seeds; {result['labels']} labels, chance is"
            f" {100 / result['labels']:.0f}. A linear probe on the pixels themselves: {told([result['raw_pixels']])}.",
            "",
            "Linear probe on frozen features:",
            "",
            *table(head, accuracy_rows(trials, "probe")),
            "",
            "Fine-tuned:",
            "",
            *table(head, accuracy_rows(trials, "fine_tuned")),
            "",
            "Fine-tuned after all of pre-training, the same clips at each highest learning rate:",
            "",
            *table(["start", *trials[0]["swept"], "best mean"], sweep_rows(trials, result["settings"]["longer"])),
            "",
            "Losses of pre-training, hidden tokens whose content is visible in another slot (percent), processor time:",
            "",
            *table(
                ["method", "loss", "first steps", "last steps", "motion", "leakage", "CPU s"],
                loss_rows(trials),
            ),
            "",
            "Leakage of other masks on the same clips, percent:",
            "",
            *table(["mask", "leakage"], [[name, told([share])] for name, share in result["leakage"].items()]),
            "",
        ]
    )
