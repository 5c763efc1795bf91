"""What methods share that put something in the place of a layer while it trains: finding layers, swapping them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional

from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.run import Run
from bigopt_plugins.compression._weights import tell_left

WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Linear)
"""Layers whose weight a method may recompute; exact types, since a subclass may compute something else."""


def weighted_layers(run: Run) -> dict[str, nn.Module]:
    """Layers whose weights can be replaced by something computed, by name; the others are named in notes.

    Raises:
        RequestError: there is none, or ``strict`` and a layer cannot be handled.
    """
    found: dict[str, nn.Module] = {}
    left: dict[str, str] = {}
    for name, layer in run.model.named_modules():
        if not isinstance(layer, WEIGHTED) or run.options.ignores(name):
            continue
        reason = hindrance(run.model, layer)
        if reason is None:
            found[name] = layer
        else:
            left[name] = reason
    tell_left(run, left)
    if not found:
        raise RequestError("the model has no convolution or linear layer that could be compressed")
    return found


def hindrance(model: nn.Module, layer: nn.Module) -> str | None:
    """Why a layer's weight cannot be replaced; None if it can."""
    if type(layer) not in WEIGHTED:
        return f"{type(layer).__name__} may read its weight in another way"
    weight = weight_of(layer)
    if not weight.requires_grad:
        return "it is frozen"
    uses = Counter(id(p) for module in model.modules() for p in module.parameters(recurse=False))
    return "another module has the same weight" if uses[id(weight)] > 1 else None


def swap(model: nn.Module, replacements: Mapping[nn.Module, nn.Module]) -> None:
    """Puts other modules in the places of some, everywhere they stand; in place."""
    new = set(replacements.values())
    for parent in [module for module in model.modules() if module not in new]:  # a new one may hold the old one
        for name, child in list(parent._modules.items()):
            if child is not None and child in replacements:
                replacement = replacements[child]
                replacement.train(child.training)
                setattr(parent, name, replacement)


def with_weight(layer: nn.Module, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """What a layer gives with another weight and bias."""
    if isinstance(layer, nn.Linear):
        return functional.linear(x, weight, bias)
    assert isinstance(layer, nn.Conv1d | nn.Conv2d)
    out: Tensor = layer._conv_forward(x, weight, bias)
    return out


def channel_shape(layer: nn.Module) -> tuple[int, ...]:
    """Shape that makes a vector over channels fit the layer's inputs and outputs."""
    shapes: dict[type[nn.Module], tuple[int, ...]] = {nn.Conv1d: (1, -1, 1), nn.Conv2d: (1, -1, 1, 1)}
    return shapes.get(type(layer), (-1,))


def weight_of(layer: nn.Module) -> Tensor:
    """A layer's weight."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight


def total_steps(run: Run, epochs: int) -> int:
    """Optimizer steps of a fit of so many epochs, at least 1."""
    trainer = run.settings.trainer
    batches = -(-len(run.data.train) // trainer.rows)
    return max(1, epochs * -(-batches // trainer.accumulate))
