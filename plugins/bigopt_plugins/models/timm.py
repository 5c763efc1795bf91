"""Models of the timm library."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn

from bigopt.vocabulary.errors import RequestError
from bigopt_plugins.models._common import at_least, choice, refuse
from bigopt_plugins.models._transformers import try_out

MINE = ("in_chans", "num_classes", "pretrained", "checkpoint_path")
"""Arguments of timm that come from the data, or that would load something."""


def timm_model(
    *,
    in_channels: int,
    image_size: int,
    num_classes: int,
    architecture: str = "resnet18",
    args: dict[str, Any] | None = None,
) -> nn.Module:
    """Any model of timm by its name, freshly initialised (extra ``vision``; Wightman 2019).

    Weights are not downloaded: give a local file as ``model.weights``.

    Args:
        in_channels: channels of the images, from the data.
        image_size: height and width of the images, from the data; given to architectures that have a fixed one.
        num_classes: classes or regression targets, from the data.
        architecture: the model's name in timm.
        args: further arguments of ``timm.create_model``.

    Raises:
        RequestError: timm is missing or does not load, an unknown model or argument, or images it cannot take.
    """
    timm = _timm()
    extra = dict(args or {})
    refuse(
        at_least(1, in_channels=in_channels, image_size=image_size, num_classes=num_classes),
        [f"args.{name}: not allowed here, it comes from the data or loads weights" for name in extra if name in MINE],
        choice("architecture", architecture, timm.list_models()),
    )
    if "img_size" in inspect.signature(timm.model_entrypoint(architecture)).parameters or _fixed(timm, architecture):
        extra.setdefault("img_size", image_size)
    try:
        model: nn.Module = timm.create_model(
            architecture, pretrained=False, in_chans=in_channels, num_classes=num_classes, **extra
        )
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RequestError(f"args: timm refuses {extra} for {architecture}: {reason}") from error
    try_out(model, torch.zeros(2, in_channels, image_size, image_size), architecture)
    return model


def _timm() -> Any:
    """The library, or what to do about it."""
    try:
        import timm
    except ModuleNotFoundError as error:
        raise RequestError(
            f"timm needs the package {error.name}, which is not installed; try: pip install 'bigopt[vision]'"
        ) from error
    except Exception as error:  # a torchvision that was built for another torch fails in many ways
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RequestError(
            f"timm is installed but does not load ({reason}); usually torchvision was built for another torch "
            "(see bigopt doctor)"
        ) from error
    return timm


def _fixed(timm: Any, architecture: str) -> bool:
    """Whether the architecture is made for one image size, such as a ViT."""
    settings = timm.get_pretrained_cfg(architecture)
    return bool(getattr(settings, "fixed_input_size", False))


timm_model.kinds = ("image",)  # type: ignore[attr-defined]
timm_model.min_size = 8  # type: ignore[attr-defined]
