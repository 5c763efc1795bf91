"""Teachers asked about a batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bigopt.vocabulary.answers import answer
from bigopt.vocabulary.run import recording
from bigopt_plugins.transfer.distillation._terms import Terms


@torch.no_grad()
def ask(models: Sequence[nn.Module], terms: Sequence[Terms], x: Tensor) -> tuple[list[Tensor], dict[str, Tensor]]:
    """What teachers answer to raw inputs, and the targets of their layers; nothing can be trained through them."""
    answers: list[Tensor] = []
    targets: dict[str, Tensor] = {}
    wanted = {one.number: one for one in terms}
    for number, model in enumerate(models):
        one = wanted.get(number)
        with recording(model, one.wanted() if one is not None else ()) as seen:
            answers.append(answer(model, x))
        if one is not None:
            targets |= one.targets(seen)
    return answers, targets
