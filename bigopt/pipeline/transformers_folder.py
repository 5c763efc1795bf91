"""Weights of folders that the transformers library wrote."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bigopt.pipeline.structure import WEIGHTS
from bigopt.store.quiet import quiet_transformers
from bigopt.vocabulary.errors import RequestError


def transformers_state(net: nn.Module, folder: Path) -> dict[str, Tensor]:
    """The tensors of a transformers folder under a network's names.

    For nets of transformers, names of older releases are translated, and heads of other tasks are left out. A tensor
    whose shape does not fit is given without values, for the message.

    Args:
        net: the net inside the network.
        folder: with ``config.json`` and weights, which are loaded safely.

    Raises:
        RequestError: no weights, or none that can be loaded safely.
    """
    from transformers import PreTrainedModel

    given = _shards(folder)
    if not isinstance(net, PreTrainedModel):
        return {f"net.{name}": tensor for name, tensor in given.items()}
    kind: Any = type(net)
    with quiet_transformers():
        made, found = kind.from_pretrained(
            None,
            config=copy.deepcopy(net.config),
            state_dict=given,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    state = {name: tensor for name, tensor in made.state_dict().items() if name not in found["missing_keys"]}
    for name, shape, *_ in found["mismatched_keys"]:
        state[name] = torch.empty(shape, device="meta")
    encoder = net.base_model_prefix + "."
    state |= {name: given[name] for name in found["unexpected_keys"] if name in given and name.startswith(encoder)}
    return {f"net.{name}": tensor for name, tensor in state.items()}


def _shards(folder: Path) -> dict[str, Tensor]:
    """All tensors of a transformers folder, each file loaded safely."""
    from bigopt.store import inside, load_weights, read_json

    for name in (WEIGHTS, "pytorch_model.bin"):
        if (folder / name).is_file():
            return load_weights(folder / name)
        index = folder / f"{name}.index.json"
        if index.is_file():
            files = sorted({str(file) for file in dict(read_json(index).get("weight_map", {})).values()})
            return {key: tensor for file in files for key, tensor in load_weights(inside(folder, file)).items()}
    raise RequestError(f"weights {folder}: has a config.json, but neither {WEIGHTS} nor pytorch_model.bin")
