"""Stops a search that is no longer worth it: Optuna's terminator (Makarova et al. 2022, arXiv:2104.08166)."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bigopt.search.apart import apart
from bigopt.search.configurations import Configuration
from bigopt.search.outcome import completed
from bigopt.search.plan import Plan
from bigopt.search.study import load
from bigopt.vocabulary.errors import RunFailed

if TYPE_CHECKING:
    import optuna

PAUSE = 10.0
"""Looks cost a Gaussian process; so many times what the last one took passes before the next."""


@dataclass
class Worth:
    """Asks, after every completed configuration, what could still be gained.

    Attributes:
        plan: the sweep; ``limits.worth`` is the gain in the first objective that is worth going on.
        left: upper bound on what could still be gained; None before enough configurations completed.
    """

    plan: Plan
    left: float | None = None
    _seen: int = 0
    _next: float = field(default=0.0)

    def over(self, known: list[Configuration]) -> str | None:
        """Why the search is no longer worth it; None where it is."""
        worth, least = self.plan.limits.worth, self.plan.limits.worth_trials
        done = len(completed(known))
        if worth is None or done < least or done == self._seen or time.monotonic() < self._next:
            return None
        start = time.monotonic()
        try:
            self.left = self._ask()
        except RunFailed as error:  # a space without a parameter that all configurations have
            warnings.warn(f"hydra.sweeper.worth: {error}", stacklevel=2)
            self.left = None
        self._seen = done
        self._next = time.monotonic() + PAUSE * (time.monotonic() - start)
        if self.left is None or self.left >= worth:
            return None
        metric = self.plan.objectives[0].metric
        return f"{metric} can hardly gain {worth:g} more: at most {self.left:.2g} after {done} trials"

    def _ask(self) -> float:
        """In a process of its own, so that this one keeps no threads."""
        self.plan.storage.close()
        return apart(lambda: improvement(load(self.plan.storage, self.plan.study), self.plan.limits.worth_trials))


def improvement(study: optuna.Study, least: int) -> float:
    """What could still be gained, with high probability at most: Optuna's regret bound.

    Args:
        study: with one objective, and completed trials.
        least: completed trials that the bound's model is made of, if there are so many.
    """
    from optuna.terminator import RegretBoundEvaluator

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evaluator = RegretBoundEvaluator(min_n_trials=least, seed=0)
        return float(evaluator.evaluate(study.get_trials(deepcopy=False), study.direction))
