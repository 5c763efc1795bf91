"""A sparse representation of the weights by a Gaussian function under an operator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from bigopt.surgery import Groups
from bigopt.vocabulary.batch import Batch, Output
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.network import Network
from bigopt.vocabulary.objective import Monitor
from bigopt.vocabulary.part import Fit, Part
from bigopt.vocabulary.run import Run
from bigopt_plugins.compression._channels import Units, find_units
from bigopt_plugins.compression._held import KeepZeros
from bigopt_plugins.compression._weights import network, tell_left, weighted
from bigopt_plugins.compression.gaussian_constraint._operator import Operator, operator_for
from bigopt_plugins.compression.gaussian_constraint._representation import Sparse, load, save
from bigopt_plugins.compression.gaussian_constraint._state import State, weight_of

NAME = "gaussian_constraint"
KINDS = (nn.Conv1d, nn.Conv2d, nn.Linear)


class GaussianConstraint(Part):
    """Finds a sparse ``z = D w`` by minimising a Gaussian function of it, stores z, and rebuilds w from it.

    Smoothed ℓ0 (Mohimani, Babaie-Zadeh and Jutten 2009, arXiv:0809.2508): ``Σ (1 - exp(-z²/2σ²))`` counts the entries
    of z that are large against σ, is smooth, and hardly touches large entries. It is minimised together with the loss
    while σ goes down geometrically, so that the minimum is followed from a convex problem to the count: as in the
    paper, steps of steepest descent ``w ← w - μ σ² ∇Σ`` alternate with what keeps the data explained, here an optimizer
    step with rate η; ``μ = p · η / (‖D‖₂² Σ_t η_t)`` with ``penalty`` p (``solver: loss`` adds ``p/N · Σ`` over the N
    weights to the loss instead, which Adam rescales). Entries up to ``cut·σ`` are then set to zero, and the others
    fitted to w by least squares. The weight that the model computes with is ``ŵ = D⁻¹z``; ``‖w - ŵ‖/‖w‖`` is reported,
    since the result is approximate. In the recovery, a projection after each step keeps z on its support.

    D acts on the kernel's plane of a convolution and along the inputs of a linear layer: the identity, the discrete
    Laplacian with zeros outside (invertible, unlike the one with mirrored borders), or a convolution with a given
    kernel that can be inverted. Units whose ŵ vanishes are removed; the file of z is beside the report.

    Args:
        penalty: p; an entry far under σ that the loss does not hold up shrinks to ``exp(-p)`` of itself in all. Less
            where ``Σ_t η_t`` is under a layer's root mean square: the loss could hold nothing up. 0 trains without.
        operator: D.
        kernel: rows of D's kernel, both numbers odd, for ``operator: kernel``; a linear layer takes the middle row.
        sigma: σ at the start and at the end of the training, in units of each layer's root mean square of z.
        solver: ``descent`` steps of its own, or a term of the ``loss``.
        cut: entries up to this multiple of the last σ become zero.
        epochs: epochs with the penalty, before the recovery; null means half of the first stage's.
        lr: peak learning rate of these epochs as a share of ``optimizer.lr``.
        ratio: share of all entries of z that becomes zero, the smallest ones; null sets those under the cut to zero.
            With ``max_drop`` the share is searched, so set it.

    Raises:
        RequestError: an argument is out of range.
    """

    strengths: ClassVar[tuple[float, ...]] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
    space: ClassVar[dict[str, str]] = {"penalty": "tag(log,interval(0.5,8))"}

    def __init__(
        self,
        penalty: float = 3.0,
        operator: Literal["identity", "laplacian", "kernel"] = "identity",
        kernel: tuple[tuple[float, ...], ...] = (),
        sigma: tuple[float, float] = (1.0, 0.1),
        solver: Literal["descent", "loss"] = "descent",
        cut: float = 2.0,
        epochs: int | None = None,
        lr: float = 1.0,
        ratio: float | None = None,
    ) -> None:
        problems = []
        for name, value in (("penalty", penalty), ("cut", cut), ("epochs", epochs or 0)):
            if not value >= 0:
                problems.append(f"{name}: got {value}, expected 0 or more")
        if operator not in ("identity", "laplacian", "kernel"):
            problems.append(f"operator: got {operator!r}, expected identity, laplacian or kernel")
        if solver not in ("descent", "loss"):
            problems.append(f"solver: got {solver!r}, expected descent or loss")
        problems += _kernel_problems(kernel, operator)
        if not sigma[0] >= sigma[1] > 0:
            problems.append(f"sigma: got {list(sigma)}, expected a start and an end above 0 that is not larger")
        if not lr > 0:
            problems.append(f"lr: got {lr}, expected a value above 0")
        if ratio is not None and not 0 <= ratio < 1:
            problems.append(f"ratio: got {ratio}, expected a share in [0, 1)")
        if problems:
            raise RequestError(problems)
        self.penalty = penalty
        self.operator = operator
        self.kernel = kernel
        self.sigma = sigma
        self.solver = solver
        self.cut = cut
        self._epochs = epochs
        self.lr = lr
        self.ratio = ratio
        self._state: State | None = None
        self._sigma: float | None = None
        self._total = 1.0

    def strength(self) -> float | None:
        """The configured ratio."""
        return self.ratio

    def extra_epochs(self, run: Run) -> int:
        """Epochs with the penalty."""
        if self.penalty == 0:
            return 0
        return self._epochs if self._epochs is not None else max(1, round(run.settings.trainer.max_epochs / 2))

    def layers(self, run: Run) -> Sequence[str]:
        """Convolutions and linear layers that have a representation."""
        return list(self._found(run)[0].layers)

    def prepare(self, run: Run, fit: Fit) -> None:
        """Trains with the penalty; without a ratio, sets what is small to zero.

        Raises:
            RequestError: ``strict`` and a layer cannot be handled.
        """
        network(run, NAME)
        self._state, left = self._found(run)
        tell_left(run, left)
        self._state.measure()
        epochs = self.extra_epochs(run)
        if epochs:
            self._train(run, fit, epochs)
        if self.ratio is None:
            least = self.cut * self.sigma[1]
            self._state.cut({name: self._state.relative(name) > least for name in self._state.layers})
            self._silence(run, self._state)

    def apply(self, run: Run, strength: float, only: str | None = None) -> None:
        """Sets this share of what is left of z to zero, the smallest entries of all layers together."""
        state = self._state
        if state is None or not state.of(run.model):
            state = self._found(run)[0]
            state.measure()
        chosen = {name: state.relative(name) for name in state.layers if only in (None, name)}
        for name, mask in state.keep.items():
            chosen[name] = chosen[name] * mask.to(chosen[name].device)
        threshold = _smallest(torch.cat([values.flatten() for values in chosen.values()]), strength)
        state.cut({name: values > threshold for name, values in chosen.items()})
        self._silence(run, state)

    def loss(self, run: Run, batch: Batch, output: Output) -> dict[str, Tensor]:
        """``p/N · Σ (1 - exp(-(Dw)²/2σ²))`` while the penalty acts through the loss."""
        if self._sigma is None or self._state is None or self.solver != "loss":
            return {}
        return {"gaussian": self.penalty * self._state.density(self._sigma)}

    def callbacks(self, run: Run) -> list[Any]:
        """Lowers σ while the penalty acts; afterwards keeps z on its support."""
        from bigopt_plugins.compression.gaussian_constraint._callbacks import Anneal, Project

        if self._sigma is not None:
            return [Anneal(self._tell, self._descend if self.solver == "descent" else None)]
        return [Project(self._state.project)] if self._state is not None else []

    def finish(self, run: Run, fit: Fit) -> None:
        """Removes units that vanished, stores z, and leaves weights rebuilt from it."""
        model = network(run, NAME)
        state = self._state
        assert state is not None
        state.project()
        before = {name: weight_of(layer).shape for name, layer in state.layers.items()}
        dead = [(units, state.dead(units)) for units in self._units(run, model)[1]]
        sparse = {name: self._sparse(name, state, dead) for name in state.layers}
        self._remove(run, model, dead)
        with torch.no_grad():
            for name, each in sparse.items():
                weight_of(model.get_submodule(name)).copy_(each.weight())
        self._report(run, state, sparse, before)
        if self.operator == "identity":
            run.parts.append(KeepZeros(tuple(f"{name}.weight" for name in sparse)))
        self._state = None

    @staticmethod
    def rebuild(path: str | Path) -> dict[str, Tensor]:
        """The weights by layer, from the file that the step left in the run's folder."""
        return load(path)

    def _found(self, run: Run) -> tuple[State, dict[str, str]]:
        layers, left = weighted(run, KINDS)
        operators: dict[str, Operator] = {}
        for name, layer in layers.items():
            operator = operator_for(layer, self.operator, self.kernel)
            if isinstance(operator, str):
                left[name] = operator
            else:
                operators[name] = operator
        return State({name: layers[name] for name in operators}, operators), left

    def _train(self, run: Run, fit: Fit, epochs: int) -> None:
        from bigopt_plugins.compression._rates import total_rate
        from bigopt_plugins.compression.gaussian_constraint._callbacks import LAST

        lr = self.lr * run.settings.optimizer.rate
        self._sigma, self._total = self.sigma[0], total_rate(run, epochs, lr)
        assert self._state is not None
        self._state.limit(self._total)
        try:
            penalised = replace(run, monitor=Monitor(LAST, "max"))
            fit(penalised, epochs, lr=lr, name=NAME, parts=[*run.parts, self])
        finally:
            self._sigma = None

    def _tell(self, share: float) -> None:
        start, end = self.sigma
        self._sigma = start * (end / start) ** share

    def _descend(self, rate: float) -> None:
        assert self._state is not None and self._sigma is not None
        self._state.descend(self._sigma, self.penalty * rate / self._total)

    def _units(self, run: Run, model: Network) -> tuple[Groups, list[Units]]:
        example = run.data.train.take(torch.arange(min(2, len(run.data.train))))
        groups = Groups(model, example, run.options.ignore)
        return groups, find_units(model, groups)[0]

    def _silence(self, run: Run, state: State) -> None:
        """Takes the shifts of units away whose weights vanished, so that removing them later changes nothing."""
        state.silent = [(units, state.dead(units)) for units in self._units(run, network(run, NAME))[1]]
        for units, dead in state.silent:
            units.silence(dead)

    @staticmethod
    def _sparse(name: str, state: State, dead: Sequence[tuple[Units, Tensor]]) -> Sparse:
        """A layer's z without the rows of removed units; its columns too, where the operator does not run along."""
        weight, operator = weight_of(state.layers[name]).detach(), state.operators[name]
        rows = torch.ones(weight.shape[0], dtype=torch.bool)
        columns = torch.ones(weight.shape[1], dtype=torch.bool)
        for units, gone in dead:
            gone = _one_left(gone)
            for sides, kept in ((units.makes, rows), (units.reads, columns)):
                for side in sides:
                    if side.name == name:
                        kept[side.index[gone[side.unit]]] = False
        z = (
            operator.sparse(weight.double()).float() * state.keep[name]
            if name in state.keep
            else operator.sparse(weight)
        )
        z = z[rows.to(z.device)]
        if operator.matrix is None or weight.ndim > 2:
            return Sparse(z[:, columns.to(z.device)], operator, torch.arange(int(columns.sum())))
        return Sparse(z, operator, columns.nonzero().flatten())

    def _remove(self, run: Run, model: Network, dead: Sequence[tuple[Units, Tensor]]) -> None:
        """Removes dead units; at least one of each group stays."""
        groups, found = self._units(run, model)
        gone = {units.name: _one_left(mask) for units, mask in dead}
        for units in found:
            chosen = gone[units.name].nonzero().flatten().tolist()
            if chosen:
                groups.remove(units.group, chosen)

    def _report(self, run: Run, state: State, sparse: dict[str, Sparse], before: dict[str, torch.Size]) -> None:
        rows: list[dict[str, Any]] = [
            {
                "layer": name,
                "weights": before[name].numel(),
                "nonzero": int((each.z != 0).sum()),
                "units": before[name][0],
                "units_left": len(each.z),
                "error": state.errors.get(name, 0.0),
            }
            for name, each in sparse.items()
        ]
        run.report.table(NAME, rows)
        path, size = save(sparse, run.folder, NAME)
        total, nonzero = sum(row["weights"] for row in rows), sum(row["nonzero"] for row in rows)
        run.report.value("density", nonzero / max(1, total))
        run.report.value("representation", {"file": path.name, "bytes": size, "dense_bytes": 4 * total})
        worst = max(rows, key=lambda row: row["error"])
        run.report.value("worst_error", worst["error"])
        run.report.note(
            f"{nonzero:,} of {total:,} entries of z are left, {size:,} bytes in {path.name}; the rebuilt weights "
            f"differ from the trained ones by up to {worst['error']:.2%} ({worst['layer']}) before the recovery"
        )


def _one_left(dead: Tensor) -> Tensor:
    """The dead units, without the first one if all are dead."""
    if not bool(dead.all()):
        return dead
    left = dead.clone()
    left[0] = False
    return left


def _smallest(values: Tensor, share: float) -> float:
    """The value up to which this share of the entries that are not zero lies; 0 if that is none of them."""
    present = values[values > 0]
    count = int(share * len(present) + 1e-9)
    return float(present.kthvalue(count).values) if count else 0.0


def _kernel_problems(kernel: Sequence[Sequence[float]], operator: str) -> list[str]:
    if operator != "kernel":
        return [f"kernel: got {[list(row) for row in kernel]}, but the operator is {operator}"] if kernel else []
    widths = {len(row) for row in kernel}
    if len(kernel) % 2 and len(widths) == 1 and next(iter(widths)) % 2:
        return []
    return [f"kernel: got {[list(row) for row in kernel]}, expected an odd number of rows of one odd length"]
