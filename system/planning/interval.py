"""How often to write checkpoints on machines that are taken back, and what preemptions then cost. Arithmetic alone.

J. W. Young, "A first order approximation to the optimum checkpoint interval", CACM 17(9), 1974.
J. T. Daly, "A higher order estimate of the optimum checkpoint interval for restart dumps", Future Generation Computer
Systems 22(3), 2006. Both take preemptions to come at random, independent of each other.
"""

from __future__ import annotations

from math import exp, inf, sqrt

DAY_S = 86_400.0
# The largest power of e that is a float, about.
LARGEST_POWER = 700.0


def young_s(stall_s: float, between_s: float) -> float:
    """Return Young's interval, seconds of work from one checkpoint to the next: sqrt(2 d M).

    Args:
        stall_s: d, how long the training stands still for a checkpoint.
        between_s: M, mean time from one preemption of the run to the next.
    """
    return sqrt(2 * stall_s * between_s)


def daly_s(stall_s: float, between_s: float) -> float:
    """Return Daly's interval, seconds of work from one checkpoint to the next.

    sqrt(2 d M) (1 + x / 3 + x^2 / 9) - d with x = sqrt(d / 2 M), where d < 2 M; else M. The arguments are `young_s`'s.
    """
    if stall_s >= 2 * between_s:
        return between_s
    x = sqrt(stall_s / (2 * between_s))
    return young_s(stall_s, between_s) * (1 + x / 3 + x * x / 9) - stall_s


def stretch(interval_s: float, stall_s: float, restart_s: float, between_s: float) -> float:
    """Return how many times longer a run takes than its work alone, with preemptions and checkpoints (Daly).

    M exp(R / M) (exp((T + d) / M) - 1) / T, for intervals T of work and R from a preemption to the next step.

    Args:
        interval_s: T, work from one checkpoint to the next.
        stall_s: d, as above.
        restart_s: R, with what was done after a checkpoint's copy and before it counted: that is lost too.
        between_s: M, as above.

    Returns:
        1 or more; infinite where intervals are so long that none is ever completed.
    """
    if max(restart_s, interval_s + stall_s) > LARGEST_POWER / 2 * between_s:
        return inf
    return between_s * exp(restart_s / between_s) * (exp((interval_s + stall_s) / between_s) - 1) / interval_s
