"""How far the weights can move in one fit, which is what a decoupled penalty has to be measured against."""

from __future__ import annotations

from bigopt.train.schedule import factor
from bigopt.vocabulary.run import Run
from bigopt_plugins.compression._layers import total_steps


def total_rate(run: Run, epochs: int, lr: float) -> float:
    """Sum of the learning rates of all optimizer steps of a fit.

    Args:
        run: gives the schedule and the number of steps.
        epochs: of the fit.
        lr: peak learning rate.
    """
    total = total_steps(run, epochs)
    each = max(1, total // max(1, epochs))
    return max(1e-30, lr * sum(factor(run.settings.scheduler, step, total, each) for step in range(total)))
