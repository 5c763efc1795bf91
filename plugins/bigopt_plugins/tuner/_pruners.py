"""Optuna's pruners by name, and what several objectives allow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bigopt.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from optuna.pruners import BasePruner

NAMES = ("none", "median", "percentile", "successive_halving", "hyperband")


def make_pruner(
    name: str,
    *,
    max_resource: int | None,
    directions: Sequence[str] | None,
    min_epochs: int = 1,
    eta: int = 3,
    percentile: float = 25.0,
    startup: int = 5,
    patience: int = 0,
) -> BasePruner | None:
    """A pruner by its name; None where nothing is stopped early.

    Args:
        name: ``none``, ``median`` (stopped below the median of earlier trials at the same epoch), ``percentile``
            (below the best ``percentile`` percent), ``successive_halving`` (asynchronous: Li et al. 2020,
            arXiv:1810.05934), ``hyperband`` (Li et al. 2018, arXiv:1603.06560, in Optuna's asynchronous form, whose
            brackets follow from the study's name and the trial's number).
        max_resource: epochs of a full training, for ``hyperband``.
        directions: of the objectives.
        min_epochs: epochs that every trial is given.
        eta: of ``successive_halving`` and ``hyperband``: one in so many goes on.
        percentile: share of trials that are kept by ``percentile``, in (0, 100).
        startup: trials that end before ``median`` and ``percentile`` stop one.
        patience: epochs without a better value before ``none``, ``median`` or ``percentile`` may stop a trial.

    Raises:
        RequestError: an unknown name, a value out of range, or several objectives.
    """
    from optuna import pruners

    problems = []
    if name not in NAMES:
        problems.append(f"pruner: got {name!r}, expected one of {', '.join(NAMES)}")
    if min_epochs < 1:
        problems.append(f"min_epochs: got {min_epochs}, expected at least 1 epoch")
    if eta < 2:
        problems.append(f"eta: got {eta}, expected at least 2")
    if not 0 < percentile < 100:
        problems.append(f"percentile: got {percentile}, expected a value in (0, 100)")
    if startup < 0:
        problems.append(f"pruner_startup: got {startup}, expected 0 trials or more")
    if patience < 0:
        problems.append(f"patience: got {patience}, expected 0 (off) or a number of epochs")
    if patience > 0 and name in ("successive_halving", "hyperband"):
        problems.append(f"patience: got {patience} with pruner {name}, expected 0: rungs are not put off")
    if name == "hyperband" and (max_resource is None or max_resource < min_epochs):
        problems.append(f"max_resource: got {max_resource}, expected at least min_epochs ({min_epochs}) for hyperband")
    if problems:
        raise RequestError(problems)
    if name != "none" or patience:
        refuse_several(directions, f"pruner: got {name!r}{f' with patience {patience}' if patience else ''}", "none")
    made: BasePruner | None = None
    if name == "median":
        made = pruners.MedianPruner(n_startup_trials=startup, n_warmup_steps=min_epochs)
    elif name == "percentile":
        made = pruners.PercentilePruner(percentile, n_startup_trials=startup, n_warmup_steps=min_epochs)
    elif name == "successive_halving":
        made = pruners.SuccessiveHalvingPruner(min_resource=min_epochs, reduction_factor=eta)
    elif name == "hyperband" and max_resource is not None:
        made = pruners.HyperbandPruner(min_resource=min_epochs, max_resource=int(max_resource), reduction_factor=eta)
    return pruners.PatientPruner(made, patience=patience) if patience else made


def refuse_several(directions: Sequence[str] | None, got: str, expected: str) -> None:
    """Stopping early compares one value per epoch.

    Raises:
        RequestError: there are several objectives.
    """
    if directions is not None and len(directions) > 1:
        raise RequestError(f"{got} with {len(directions)} objectives, expected {expected}: trials are stopped by one")
