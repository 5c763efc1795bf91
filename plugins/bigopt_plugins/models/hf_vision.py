"""Image classifiers of the transformers library."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from bigopt.data.pretrained import pretrained_folder
from bigopt.vocabulary.errors import RequestError
from bigopt_plugins.models._common import at_least, refuse
from bigopt_plugins.models._transformers import from_config, from_folder, try_out

FAMILY = "AutoModelForImageClassification"
SMALL = {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 128}
"""A ViT for small images."""

GRID = 8
"""Most patches along one side that are chosen by default."""


def hf_vision(
    *,
    in_channels: int,
    image_size: int,
    num_classes: int,
    model_type: str = "vit",
    config: dict[str, Any] | None = None,
    pretrained: str | None = None,
) -> nn.Module:
    """Any image classifier of transformers: a small ViT by default (Dosovitskiy et al. 2021).

    Made from a configuration, or loaded from a local folder; nothing is downloaded, no code from the folder is run.

    Args:
        in_channels: channels of the images, from the data.
        image_size: height and width of the images, from the data.
        num_classes: classes or regression targets, from the data.
        model_type: architecture, as transformers calls it (``vit``, ``deit``, ``convnext``, ``resnet``, …).
        config: settings of the architecture, such as ``{hidden_size: 128, patch_size: 4}``.
        pretrained: folder that ``save_pretrained`` wrote, or the name of an installed package that holds one; then
            ``model_type`` and ``config`` come from there.

    Raises:
        RequestError: an unknown architecture or setting, a folder that cannot be loaded, or images it cannot take.
    """
    refuse(at_least(1, in_channels=in_channels, image_size=image_size, num_classes=num_classes))
    if pretrained is not None:
        if config:
            raise RequestError("config: got settings beside pretrained, whose folder has its own; set one of the two")
        model = from_folder(FAMILY, pretrained_folder(pretrained), num_classes)
        _match_channels(model, in_channels)
    else:
        data = {"num_channels": in_channels, "image_size": image_size, "num_labels": num_classes}
        defaults = {**SMALL, "patch_size": _patch(image_size)} if model_type in ("vit", "deit") else {}
        model = from_config(FAMILY, model_type, defaults, config or {}, data)
    try_out(model, torch.zeros(2, in_channels, image_size, image_size), pretrained or model_type)
    return model


def _patch(image_size: int) -> int:
    """A patch that gives at most :data:`GRID` patches a side; it divides the image if one of that size or so does."""
    least = max(2, -(-image_size // GRID))
    return next((size for size in range(least, 2 * least + 1) if image_size % size == 0), least)


def _match_channels(model: Any, in_channels: int) -> None:
    """Lets a net pretrained on colour take grey images: the summed kernel sees what three equal channels would show."""
    wanted = getattr(model.config, "num_channels", in_channels)
    if wanted == in_channels:
        return
    if in_channels != 1:
        raise RequestError(f"pretrained: the model takes {wanted} channels, the images have {in_channels}")
    first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    first.weight = nn.Parameter(first.weight.detach().sum(1, keepdim=True))
    first.in_channels = 1
    model.config.num_channels = 1
    for module in model.modules():
        if getattr(module, "num_channels", None) == wanted:
            module.num_channels = 1


hf_vision.kinds = ("image",)  # type: ignore[attr-defined]
hf_vision.min_size = 4  # type: ignore[attr-defined]
