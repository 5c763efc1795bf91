"""What of a model the method works on: units, kernels and branches, as the options and the rules leave them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bigopt.surgery import Groups
from bigopt.vocabulary.network import Network
from bigopt.vocabulary.run import Run
from bigopt_plugins.compression._channels import Units, find_units, layers_of, norms_behind
from bigopt_plugins.compression.structured_sparsity._branches import Branch, find_branches
from bigopt_plugins.compression.structured_sparsity._penalty import Branches, Channels, Family, Filters, Norms, Shapes
from bigopt_plugins.compression.structured_sparsity._rules import Rule, bundles, kept, names_of

EXAMPLES = 8
"""Training samples that the model is traced with."""


@dataclass
class View:
    """One look at a model; worthless once the model's structure has changed.

    Attributes:
        groups: removes units.
        bundles: units, those together that share a fate.
        kernels: convolutions with more than one position, by name.
        branches: removable ones.
        norms: the batch norm behind each layer.
        left: layers that the method cannot work on, with the reason.
        everything: names of all layers, for rules.
    """

    groups: Groups
    bundles: list[list[Units]]
    kernels: dict[str, nn.Module]
    branches: list[Branch]
    norms: Norms
    left: dict[str, str]
    everything: list[str]

    @classmethod
    def of(cls, run: Run, model: Network, kinds: Sequence[str], rules: Sequence[Rule]) -> View:
        """Looks at a model.

        Args:
            run: options and data.
            model: what to look at.
            kinds: of the groups that are penalised.
            rules: prior knowledge.
        """
        example = run.data.train.take(torch.arange(min(EXAMPLES, len(run.data.train))))
        groups = Groups(model, example, run.options.ignore)
        found, left = find_units(model, groups)
        found = [units for units in found if not kept(rules, names_of(units))]
        everything = [name for name, _ in layers_of(model)]
        kernels: dict[str, nn.Module] = {
            name: layer
            for name, layer in layers_of(model)
            if isinstance(layer, nn.Conv2d) and layer.weight[0, 0].numel() > 1
            if not run.options.ignores(name) and not kept(rules, [name])
        }
        wanted = "depth" in kinds or any(rule.action == "remove" and not rule.units for rule in rules)
        branches = [
            branch
            for branch in (find_branches(model, example) if wanted else [])
            if not any(
                run.options.ignores(name) or kept(rules, [name]) for name in (branch.name, *branch.layers(model))
            )
        ]
        return cls(
            groups=groups,
            bundles=bundles(rules, found),
            kernels=kernels if "shapes" in kinds else {},
            branches=branches,
            norms=norms_behind(model, example),
            left=left,
            everything=everything,
        )

    def families(self, kinds: Sequence[str], model: nn.Module) -> list[Family]:
        """All groups that are penalised."""
        found: list[Family] = []
        if "filters" in kinds:
            found += [Filters(bundle, self.norms) for bundle in self.bundles]
        if "channels" in kinds:
            found += [Channels(bundle, self.norms) for bundle in self.bundles if all(u.reads for u in bundle)]
        found += [Shapes(name, layer, self.norms) for name, layer in self.kernels.items()]
        if "depth" in kinds and self.branches:
            found.append(self.depth(model))
        return found

    def depth(self, model: nn.Module) -> Branches:
        """The branches as groups."""
        return Branches([b.name for b in self.branches], [b.layers(model) for b in self.branches], self.norms)

    def strength_of(self, bundle: Sequence[Units], kinds: Sequence[str]) -> list[Tensor]:
        """Root mean squares of a bundle's units, one vector for each penalised side; a unit lives by all of them."""
        from bigopt_plugins.compression.structured_sparsity._penalty import magnitudes

        found: list[Tensor] = []
        if "filters" in kinds or "channels" not in kinds:
            found.append(magnitudes(Filters(bundle, self.norms)))
        if "channels" in kinds and all(units.reads for units in bundle):
            found.append(magnitudes(Channels(bundle, self.norms)))
        return found
