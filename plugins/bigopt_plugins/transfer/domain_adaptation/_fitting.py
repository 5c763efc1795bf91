"""Makes a source fit the target: its inputs, its classes, its weights, its normalisation."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from bigopt.vocabulary.data import Data
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.network import Network
from bigopt_plugins.transfer._source import align, class_names
from bigopt_plugins.transfer.domain_adaptation._domains import relabelled


def fitting(source: Data, target: Data, label_map: Mapping[str, str] | None) -> Data:
    """The source with the target's classes in the target's order.

    Raises:
        RequestError: inputs of another kind or shape, or other classes.
    """
    ours, theirs = source.schema, target.schema
    if (ours.kind, ours.shape) != (theirs.kind, theirs.shape):
        raise RequestError(
            f"transfer.source: the inputs differ: {source.name} gives {ours.kind} {ours.shape}, "
            f"{target.name} {theirs.kind} {theirs.shape}"
        )
    place = align(class_names(source), class_names(target), label_map)
    return relabelled(source, place, theirs.class_names)


def take_over(model: nn.Module, source: nn.Module, folder: str) -> None:
    """Weights and normalisation of an earlier run's model.

    Raises:
        RequestError: it is another model than this run's.
    """
    own, theirs = model.state_dict(), source.state_dict()
    if {name: value.shape for name, value in own.items()} != {name: value.shape for name, value in theirs.items()}:
        raise RequestError(
            f"transfer.source: the model in {folder} has other layers than this run's; choose that model with model=…"
        )
    model.load_state_dict(theirs)


def normalise(model: nn.Module, data: Data) -> None:
    """Gives the network the source's input normalisation."""
    if isinstance(model, Network):
        model.normalize = Network.for_data(model.net, data).normalize
