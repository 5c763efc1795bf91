"""Which labels choose an epoch when labels are scarce, and what the report says about them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import torch

from bigopt.data import generator, subset
from bigopt.vocabulary.data import Data
from bigopt.vocabulary.run import Run

Selection = Literal["last", "budget", "oracle", "validation"]

SHARE = 5
"""One of so many labels of a class validates where validation is paid from the budget."""


def within_budget(run: Run, selection: Selection, strategy: str) -> Data:
    """The data with the validation split that the selection allows; says in the report what labels were read.

    ``last`` reads none: the last epoch is kept, and validation figures only describe it. ``budget`` takes a fifth of
    each class's labels (at least one, never the last one) out of training and validates on them. ``oracle`` (or
    ``validation``, where a strategy is not only for few labels) validates on labels that the budget does not hold.
    """
    data = run.data
    budget = len(data.train)
    if selection == "budget":
        data = _held_out(data, run.seed)
    labels = {"budget": budget, "validation": len(data.val), "selection": selection, "oracle": selection != "budget"}
    run.report.value("labels", labels)
    spent = f"{strategy}: {budget} labels in the budget"
    chosen = f"{spent}; epochs are chosen by {len(data.val)} further labels: val/* are oracle figures"
    run.report.note(
        {
            "last": f"{spent}; the last epoch is kept; val/* are oracle figures of {len(data.val)} further labels, "
            "which chose nothing within this run (but would choose between a sweep's trials)",
            "budget": f"{spent}, {len(data.val)} of them validate; val/* are figures of these few",
        }.get(selection, chosen)
    )
    return data


def _held_out(data: Data, seed: int) -> Data:
    """Some labelled samples of each class moved from training to validation, in the place of the split there."""
    y = data.train.y
    order = torch.randperm(len(y), generator=generator(seed, "validation budget"))
    held = []
    for label in y.unique().tolist():
        rows = order[y[order] == label]
        held.append(rows[: min(max(1, len(rows) // SHARE), len(rows) - 1)])
    chosen = torch.cat(held).sort().values
    kept = torch.arange(len(y))[~torch.isin(torch.arange(len(y)), chosen)]
    return replace(
        data,
        train=subset(data.train, kept),
        val=subset(data.train, chosen),
        fingerprint=f"{data.fingerprint}-{len(chosen)}",
    )


def keep_last(run: Run) -> Any:
    """A fresh callback by which a fit keeps its last epoch's weights."""
    from bigopt_plugins.transfer._last_epoch import LastEpoch

    return LastEpoch(run)
