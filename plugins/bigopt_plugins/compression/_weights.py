"""Which layers of a model have a weight that a method can compress in place."""

from __future__ import annotations

from typing import Any

from torch import nn

from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.network import Network
from bigopt.vocabulary.run import Run

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def network(run: Run, plugin: str) -> Network:
    """The run's model.

    Raises:
        RequestError: an earlier step exported or converted it.
    """
    if not isinstance(run.model, Network):
        raise RequestError(
            f"{plugin} needs a trainable model, got an exported or converted graph; put it before quantization"
        )
    return run.model


def weighted(run: Run, kinds: tuple[type[nn.Module], ...]) -> tuple[dict[str, Any], dict[str, str]]:
    """Layers of these kinds by name, each weight once, and the other modules with weights, with the reason.

    Ignored ones are in neither; of layers that share a weight the first counts.
    """
    found: dict[str, Any] = {}
    left: dict[str, str] = {}
    seen: set[int] = set()
    for name, module in run.model.named_modules():
        own = {leaf: p for leaf, p in module.named_parameters(recurse=False) if p.ndim > 1}
        if not own or run.options.ignores(name):
            continue
        if not isinstance(module, kinds) or set(own) != {"weight"}:
            left[name] = f"{', '.join(own)} of {type(module).__name__} is no weight that the method knows"
        elif id(own["weight"]) not in seen:
            seen.add(id(own["weight"]))
            found[name] = module
    return found, left


def tell_left(run: Run, left: dict[str, str]) -> None:
    """Names what is left as it was.

    Raises:
        RequestError: ``strict``, and something is left.
    """
    if left and run.options.strict:
        lines = [f"layer {name} cannot be handled: {reason}" for name, reason in left.items()]
        raise RequestError([*lines, "name them in ignore or set strict=false"])
    for name, reason in left.items():
        run.report.note(f"{name} was left as it was: {reason}")
