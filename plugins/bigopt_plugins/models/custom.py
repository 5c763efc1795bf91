"""A model out of the user's own code."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Any

from torch import nn

from bigopt.registry.own_code import import_own
from bigopt.vocabulary.errors import RequestError


def custom(
    *,
    target: str | None = None,
    _target_: str | None = None,
    args: dict[str, Any] | None = None,
    in_channels: int | None = None,
    image_size: int | None = None,
    in_features: int | None = None,
    num_classes: int | None = None,
    vocab_size: int | None = None,
) -> nn.Module:
    """Any ``nn.Module`` by its import path. **This imports and runs the code that the configuration names.**

    The working directory is looked into as well. Arguments of the data are passed on if the signature names them and
    ``args`` does not set them.

    Args:
        target: ``package.module:Class``, or a function that returns a module.
        _target_: the same as ``package.module.Class``, as Hydra writes it.
        args: arguments for it.
        in_channels: channels of the images, from the data.
        image_size: height and width of the images, from the data.
        in_features: numbers in one sample, from the data.
        num_classes: classes or regression targets, from the data.
        vocab_size: number of tokens, from the data.

    Raises:
        RequestError: not exactly one target, code that cannot be imported, arguments that do not fit its signature, or
            a result that is no module.
    """
    if (target is None) == (_target_ is None):
        raise RequestError("target: set target=package.module:Class (or _target_=package.module.Class), one of the two")
    name = target if target is not None else _target_
    make = _find(str(name))
    given = dict(args or {})
    data = {
        "in_channels": in_channels,
        "image_size": image_size,
        "in_features": in_features,
        "num_classes": num_classes,
        "vocab_size": vocab_size,
    }
    named = _parameters(make)
    given |= {key: value for key, value in data.items() if key in named and key not in given and value is not None}
    try:
        inspect.signature(make).bind(**given)
    except TypeError as error:
        raise RequestError(f"args: got {sorted(given)}, but {name} takes {', '.join(named)}: {error}") from error
    made = make(**given)
    if not isinstance(made, nn.Module):
        raise RequestError(f"target: {name} returned {type(made).__name__}, expected a torch.nn.Module")
    return made


def _find(name: str) -> Callable[..., Any]:
    """Imports the code, saying so first."""
    module, _, attribute = name.partition(":") if ":" in name else name.rpartition(".")
    if not module or not attribute or not all(part.isidentifier() for part in f"{module}.{attribute}".split(".")):
        raise RequestError(f"target: got {name!r}, expected package.module:Class")
    logging.getLogger("bigopt").warning("model=custom imports and runs the code of %s", name)
    try:
        found: Any = import_own(module, attribute)
    except Exception as error:  # whatever the user's code raises is the user's to see
        raise RequestError(f"target: cannot import {name}: {type(error).__name__}: {error}") from error
    if not callable(found):
        raise RequestError(f"target: {name} is a {type(found).__name__}, expected a class or a function")
    made: Callable[..., Any] = found
    return made


def _parameters(make: Callable[..., Any]) -> list[str]:
    try:
        return list(inspect.signature(make).parameters)
    except (TypeError, ValueError):
        return []


custom.kinds = ("image", "tabular", "text")  # type: ignore[attr-defined]
custom.min_size = 1  # type: ignore[attr-defined]
