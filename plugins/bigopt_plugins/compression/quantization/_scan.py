"""What each layer costs at each width, from the driver's sensitivity scan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from bigopt.vocabulary.network import Network
from bigopt_plugins.compression.quantization._build import SURVEYED, Recipe, build
from bigopt_plugins.compression.quantization._calls import survey
from bigopt_plugins.compression.quantization._grid import group_fits, rows_of
from bigopt_plugins.compression.quantization._mixed import Assignment, Cost, Mixed, assign, width_of
from bigopt_plugins.compression.quantization._network import QuantizedNetwork
from bigopt_plugins.compression.quantization._plan import Plan, make_plan


def plan_of(model: Network, samples: Tensor, ignore: Sequence[str] = ()) -> Plan:
    """What of a model can be rounded; the model is left as it is."""
    with torch.no_grad():
        calls, output = survey(model, samples[:SURVEYED])
    return make_plan(model, calls, output, ignore)


def rounded_alone(
    model: Network, samples: Tensor, recipe: Recipe, seed: int, layer: str | None, bits: int, ignore: Sequence[str] = ()
) -> QuantizedNetwork:
    """The model with the weight of one layer (of all where ``layer`` is None) rounded to these bits, and nothing else.

    Args:
        model: changed in place as :func:`build` does.
        samples: raw training inputs ``(N, …)``.
        recipe: of which the granularity and the calibration of weights are used.
        seed: see :func:`build`.
        layer: its name.
        bits: of its weight.
        ignore: name patterns of layers that stay in float.
    """
    others = [] if layer is None else [name for name in plan_of(model, samples, ignore).layers if name != layer]
    weights_only = replace(recipe, bits=bits, activation_bits=None, dynamic=False, keep_norms=False, widths={})
    return build(model, samples, weights_only, seed, [*ignore, *others])[0]


def stored_bytes(weight: Tensor, bits: int, recipe: Recipe) -> int:
    """Bytes of a weight and of its steps in the file: 3 and 4 bits take 4, 5 to 8 take 8."""
    stored = next(width for width in (2, 4, 8) if bits <= width)
    fits = recipe.granularity != "per_group" or group_fits(weight, recipe.group_size)
    rows = rows_of(weight, recipe.granularity if fits else "per_channel", recipe.group_size)
    return -(-weight.numel() * stored // 8) + 4 * len(rows)


def choose(
    model: Network, plan: Plan, rows: Sequence[Mapping[str, Any]], recipe: Recipe, mixed: Mixed
) -> tuple[Assignment, list[dict[str, Any]]]:
    """Bits of each layer, and a table of what they were chosen from.

    Args:
        model: whose weights are counted.
        plan: what of it can be rounded.
        rows: ``layer``, ``strength`` and ``drop`` of every cell of a scan.
        recipe: of which the granularity is used.
        mixed: widths and limits.

    Raises:
        RequestError: the limits cannot be met.
    """
    table: dict[tuple[str, int], Cost] = {}
    for row in rows:
        layer, width = str(row["layer"]), width_of(float(row["strength"]))
        if layer in plan.layers and width in mixed.bits:
            weight = model.get_submodule(layer).weight
            assert isinstance(weight, Tensor)
            table[layer, width] = Cost(stored_bytes(weight, width, recipe), float(row["drop"]))
    chosen = assign(table, max_bytes=mixed.max_bytes, max_drop=mixed.max_drop)
    facts = [
        {"layer": layer, "bits": width, "chosen": chosen.bits[layer] == width, "bytes": cost.bytes, "drop": cost.loss}
        for (layer, width), cost in table.items()
    ]
    return chosen, facts
