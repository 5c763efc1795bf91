"""The layer that gives the logits, where weights come from a model for other classes."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor, nn

from bigopt.pipeline.keys import Fits, Sizes, compare
from bigopt.vocabulary.errors import RequestError

CLASSES = ("num_labels", "num_classes")
"""Attributes that count classes beside the last layer's own."""

Head = tuple[str, nn.Linear | nn.Conv2d]


def head_of(model: nn.Module, removed: Collection[str] = ()) -> Head | None:
    """Name and module of the last linear layer, or of the last convolution in nets without one: it gives the logits.

    Args:
        model: the net.
        removed: layers that lost channels, which the one with the logits never does.
    """
    for kind in (nn.Linear, nn.Conv2d):
        found = [(name, module) for name, module in model.named_modules() if isinstance(module, kind)]
        found = [(name, module) for name, module in found if name not in removed]
        if found:
            return found[-1]
    return None


def same_outputs(head: Head, state: Mapping[str, Tensor]) -> bool:
    """Whether the tensors have the last layer, for as many outputs as the model's."""
    name, module = head
    weight = state.get(f"{name}.weight")
    return weight is not None and weight.ndim > 0 and len(weight) == len(module.weight)


def refuse_other_outputs(model: nn.Module, head: Head, state: Mapping[str, Tensor], fits: Fits, source: str) -> None:
    """Says so if the last layer is all that differs; other differences are for the caller to report.

    Raises:
        RequestError: only the last layer differs.
    """
    name, module = head
    if compare(model.state_dict(), state, fits).without([f"{name}.weight", f"{name}.bias"]):
        return
    weight = state.get(f"{name}.weight")
    has = "is missing" if weight is None or not weight.ndim else f"is for {len(weight)} outputs"
    raise RequestError(
        f"{source}: its last layer {name} {has}, the model's is for {len(module.weight)} (the rest fits); "
        "start from weights for the same classes, or let a transfer strategy make a new last layer"
    )


def with_own_head(head: Head, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, but with the model's own last layer, for those of its inputs that are left."""
    name, module = head
    theirs = state.get(f"{name}.weight")
    mine = {f"{name}.{key}": tensor for key, tensor in module.state_dict().items()}
    if theirs is not None and theirs.ndim == module.weight.ndim:
        inputs = [slice(size) for size in theirs.shape[1:]]
        mine[f"{name}.weight"] = mine[f"{name}.weight"][(slice(None), *inputs)]
    return {key: tensor for key, tensor in state.items() if not key.startswith(f"{name}.")} | mine


def with_own_outputs(head: Head, sizes: Sizes) -> Sizes:
    """The recorded sizes, but with the model's own number of outputs."""
    name, module = head
    outputs = "out_features" if isinstance(module, nn.Linear) else "out_channels"
    cut = {
        where: {key: value for key, value in values.items() if key not in CLASSES} for where, values in sizes.items()
    }
    return {**cut, name: {**cut.get(name, {}), outputs: len(module.weight)}}
