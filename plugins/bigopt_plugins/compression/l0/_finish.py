"""The end of a step with gates or balls: units are removed for good, and the report is told what is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from bigopt.surgery import Groups
from bigopt.vocabulary.network import Network
from bigopt.vocabulary.run import Run
from bigopt_plugins.compression._layers import weight_of
from bigopt_plugins.compression.l0._units import Units, example_of


def unread(model: nn.Module, found: Sequence[Units], closed: Mapping[str, list[int]]) -> dict[str, list[int]]:
    """The closed units by group, with those of which all inputs of their readers were closed one by one.

    Args:
        model: the gates are in its weights.
        found: the units and features that had gates.
        closed: units whose own gate is closed, by group; at least one of each group is not.
    """
    result = {}
    for units in found:
        if units.features:
            continue
        gone = torch.ones(units.count, dtype=torch.bool)
        for name, (channels, behind) in units.reads.items():
            columns = weight_of(model.get_submodule(name)).detach().transpose(0, 1).flatten(1).any(1).cpu()
            gone[torch.tensor(behind)[columns[channels]]] = False
        gone[closed[units.name]] = True
        if bool(gone.all()):
            gone[next(unit for unit in range(units.count) if unit not in set(closed[units.name]))] = False
        result[units.name] = gone.nonzero().flatten().tolist()
    return result


def remove(run: Run, model: Network, closed: Mapping[str, list[int]]) -> None:
    """Removes units for good, and makes sure that the outputs are what they were."""
    if not any(closed.values()):
        if closed:
            run.report.note("no unit was removed: more epochs, a higher penalty or a smaller ball would")
        return
    model.eval()
    x = example_of(run)
    with torch.no_grad():
        before = model(x)
    groups = Groups(model, x, run.options.ignore)
    rows = []
    for group in groups:
        if group.name in closed:
            rows.append({"group": group.name, "before": group.units, "after": group.units - len(closed[group.name])})
            groups.remove(group, closed[group.name])
    with torch.no_grad():
        difference = float((model(x) - before).abs().max())
    if difference > 1e-3 * max(1.0, float(before.abs().max())):
        run.report.note(f"removing the closed units changed the outputs by {difference:.2g}: something else reads them")
    run.report.table("l0_units", rows)


def tell(run: Run, model: Network, layers: Sequence[str]) -> None:
    """What is left, as the papers' tables have it."""
    rows = [
        {"layer": name, "weights": weight.numel(), "nonzero": int(weight.count_nonzero())}
        for name, weight in ((name, weight_of(model.get_submodule(name))) for name in layers)
    ]
    if rows:
        run.report.table("l0_weights", rows)
        run.report.note("zero weights change non-zeros and compressed bytes, not MACs and latency: kernels are dense")
    shapes = {n: list(p.shape[:2]) for n, p in model.named_parameters() if p.ndim > 1}
    run.report.value("l0_architecture", shapes)
