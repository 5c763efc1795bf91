"""What two models need beside the first one: the second, the bridge between their features, unlabelled rows."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from bigopt.train.modes import evaluating
from bigopt.vocabulary.data import Data
from bigopt.vocabulary.run import INPUT, Run
from bigopt_plugins.transfer._layers import head_name


def second_model(run: Run, spec: str | Mapping[str, Any] | None, data: Data) -> nn.Module:
    """The partner; of the first one's architecture it starts from other random weights."""
    builder = copy.copy(run.build)
    if hasattr(builder, "seed"):
        builder.seed += 1
    return builder.model(spec if spec is not None else run.settings.extra["model"], data)


def feature_tap(model: nn.Module) -> str:
    """Name under which a model's last features are tapped: what enters its last linear layer."""
    return head_name(model) + INPUT


def bridge_between(run: Run, second: nn.Module) -> nn.Linear:
    """A linear map from the first model's features to the second's."""
    x = run.data.train.take(torch.arange(1))
    sizes = []
    for model in (run.model, second):
        tap = feature_tap(model)
        with evaluating(model), torch.no_grad():
            sizes.append(run.forward(x, [tap], model).taps[tap].flatten(1).shape[1])
    return nn.Linear(sizes[0], sizes[1], bias=False)


def shared_spec(run: Run, spec: str | Mapping[str, Any] | None) -> bool:
    """Whether the partner has the first model's architecture."""
    own = {key: value for key, value in run.settings.extra.get("model", {}).items() if key != "weights"}
    given = {"name": spec} if isinstance(spec, str) else spec
    return given is None or {key: value for key, value in given.items() if key != "weights"} == own
