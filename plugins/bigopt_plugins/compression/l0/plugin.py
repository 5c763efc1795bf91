"""L0 regularisation, and constraints on the number or the size of weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from bigopt.vocabulary.batch import Batch, Output
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.network import Network
from bigopt.vocabulary.objective import Monitor
from bigopt.vocabulary.part import Fit, Part
from bigopt.vocabulary.run import Run
from bigopt_plugins.compression._held import KeepZeros
from bigopt_plugins.compression._layers import total_steps, weighted_layers
from bigopt_plugins.compression._weights import network
from bigopt_plugins.compression.l0._balls import UnitBall, WeightBall, closed_units
from bigopt_plugins.compression.l0._control import OBJECTIVE, Control, gate_units, gate_weights, other_weights
from bigopt_plugins.compression.l0._finish import remove, tell, unread
from bigopt_plugins.compression.l0._hard_concrete import bake
from bigopt_plugins.compression.l0._units import Units, gateable_units

PRICES = {"units": 3.0, "weights": 30.0}
"""Penalty by what is gated, unless one is given."""


class L0(Part):
    """Learns which units or weights a network needs, by gates that count them or by projections that bound them.

    **Gates** (Louizos et al. 2018, arXiv:1712.01312). Every unit or weight is multiplied by a hard-concrete gate
    ``z = min(1, max(0, s(ζ−γ)+γ))``, ``s = sigmoid((log u − log(1−u) + log α)/β)``, u uniform, β = 2/3, γ = −0.1,
    ζ = 1.1, and the expected number of non-zero weights ``E‖θ‖₀`` follows from
    ``P(z ≠ 0) = sigmoid(log α − β·log(−γ/ζ))``. Without a constraint the loss gains
    ``penalty · E‖θ‖₀ / |θ|`` (the paper's λ is ``penalty · N / |θ|`` for N training samples). In the end gates take
    ``min(1, max(0, sigmoid(log α)(ζ−γ)+γ))``; units whose gate is 0 are removed, weights whose gate is 0 are 0.

    **Constraints**, which two differ:

    - ``l0_ball``: at most k non-zero weights. It counts and does not care how large they are: what stays is not
      shrunk, and rescaling a layer changes nothing; but the set is not convex, so where training ends depends on its
      path. By ``lagrangian`` the gates minimise ``loss + μ·(E‖θ‖₀ − k)/|θ|`` while μ ascends,
      ``μ ← μ + η·(E‖θ‖₀ − k)/|θ|``, and goes back to 0 once the constraint holds (Gallego-Posada et al. 2022,
      arXiv:2208.04425), and what it has not reached by then is cut: from 40% to 75% of the fit a cap falls to k, over
      which the least probable gates are closed. By ``projection`` there are no gates, and after every step all weights
      but those that are largest, relative to their layer's root mean square, are set to 0 (units: by the norm of what
      reads them; iterative hard thresholding, Blumensath and Davies 2009). k holds exactly either way.
    - ``l1_ball``: ``Σ|w| ≤ threshold``, by the projection of Duchi et al. (2008) after every step: all weights move
      towards 0 by the same amount, and those that reach it are 0. The set is convex, the projection is exact and
      zeros are its by-product: how many there are nobody says in advance, what stays is shrunk, and a layer behind
      which a batch norm follows can avoid the bound by shrinking as a whole. With units, the norms of their vectors
      of weights (relative to their group's) are bounded instead, so that whole units vanish.

    Units are channels, neurons or heads whose removal is exactly a gate of 0 at everything that reads them; groups
    with a layer norm across them are named and left. With ``inputs`` single inputs of linear layers have gates too:
    pixels, and positions of a flattened map, as in the paper's LeNets; closed ones become columns of zeros. The epoch
    that is kept is the one with the least loss on validation plus penalty (among those that meet the constraint).

    Args:
        gates: what is counted: ``units`` are removed, ``weights`` become zeros.
        constraint: ``none`` for a penalty, ``l0_ball`` or ``l1_ball``.
        inputs: with gates on units, also gate what linear layers read that is no unit.
        method: how ``l0_ball`` is reached: ``lagrangian`` or ``projection``.
        penalty: price of keeping every weight, in nats of the loss; for no constraint. Null takes 3 for units, and 30
            for weights: a single weight's share of 3 nats is lost in the noise of its gradient.
        keep: size of the ball as a share: of the number of weights in convolutions and linear layers (``l0_ball``), or
            of ``Σ|w|`` before the step (``l1_ball``).
        k: size of the ``l0_ball`` in weights, instead of ``keep``.
        threshold: size of the ``l1_ball``, instead of ``keep``.
        warmup: share of the steps over which the penalty rises, or the ball shrinks to its size.
        gate_lr: peak learning rate of the gates; null lets a gate close in a fifth of the fit (an optimizer of the
            Adam family is assumed).
        ascent: what the multiplier gains in a fit whose constraint is missed by the whole model, in nats.

    Raises:
        RequestError: an argument is out of range, the constraint cannot be met, or nothing can be gated.
    """

    space: ClassVar[dict[str, str]] = {"penalty": "tag(log,interval(0.5,60))"}

    def __init__(
        self,
        gates: Literal["units", "weights"] = "units",
        constraint: Literal["none", "l0_ball", "l1_ball"] = "none",
        method: Literal["lagrangian", "projection"] = "lagrangian",
        penalty: float | None = None,
        keep: float = 0.3,
        k: int | None = None,
        threshold: float | None = None,
        warmup: float = 0.3,
        gate_lr: float | None = None,
        ascent: float = 50.0,
        inputs: bool = False,
    ) -> None:
        problems = _wrong_choices(gates=gates, constraint=constraint, method=method)
        if not 0 < keep <= 1:
            problems.append(f"keep: got {keep}, expected a share in (0, 1]")
        if not 0 <= warmup <= 1:
            problems.append(f"warmup: got {warmup}, expected a share in [0, 1]")
        for name, value in (("penalty", penalty), ("ascent", ascent), ("gate_lr", gate_lr), ("threshold", threshold)):
            if value is not None and value <= 0:
                problems.append(f"{name}: got {value}, expected a positive number")
        if k is not None and (k < 1 or constraint != "l0_ball"):
            problems.append(f"k: got {k}, expected a positive number, with constraint l0_ball")
        if threshold is not None and constraint != "l1_ball":
            problems.append(f"threshold: got {threshold}, which needs constraint l1_ball")
        if inputs and (
            gates != "units" or constraint == "l1_ball" or (constraint, method) == ("l0_ball", "projection")
        ):
            problems.append("inputs: got true, which needs gates on units (a projection has none)")
        if problems:
            raise RequestError(problems)
        self.gates = gates
        self.constraint = constraint
        self.method = method
        self.penalty = PRICES[gates] if penalty is None else penalty
        self.keep = keep
        self.k = k
        self.threshold = threshold
        self.warmup = warmup
        self.gate_lr = gate_lr
        self.ascent = ascent
        self.inputs = inputs
        # Of the step in progress, built anew by prepare; what must last is in the modules.
        self._control: Control | None = None
        self._ball: WeightBall | UnitBall | None = None
        self._sizes = (0.0, 0.0)
        self._monitor: Monitor | None = None
        self._layers: tuple[str, ...] = ()
        self._units: list[Units] = []

    def epochs(self, run: Run) -> int:
        """As many as the first stage had: gates need time to close."""
        return run.settings.trainer.max_epochs

    def prepare(self, run: Run, fit: Fit) -> None:
        """Puts gates into the model, or measures the ball.

        Raises:
            RequestError: nothing can be gated, or the constraint cannot be met.
        """
        model = network(run, "l0")
        self._control, self._ball, self._layers = None, None, ()
        generator = torch.Generator().manual_seed(run.seed)
        if self._projects():
            self._ball = self._make_ball(run, model)
            start = self._ball.size()
            asked = self.k if self.constraint == "l0_ball" else self.threshold
            self._sizes = (start, self.keep * start if asked is None else asked)
            self._feasible(self._ball.least(), start)
        elif self.gates == "units":
            self._units = gateable_units(run, model, self.inputs)
            self._layers = tuple(name for units in self._units if units.features for name in units.reads)
            self._control = gate_units(model, self._units, generator)
        else:
            self._control = gate_weights(model, self._choose(run), generator)
        if self._control is not None and self.constraint == "l0_ball":
            total = self._control.total
            self._sizes = (total, self.keep * total if self.k is None else self.k)
            self._feasible(self._control.least(), total)
        self._monitor, run.monitor = run.monitor, Monitor(OBJECTIVE, "min")

    def modules(self, run: Run) -> dict[str, nn.Module]:
        """The gates with the multiplier."""
        return {} if self._control is None else {"l0": self._control}

    def loss(self, run: Run, batch: Batch, output: Output) -> dict[str, Tensor]:
        """``penalty · E‖θ‖₀/|θ|``, or ``μ · (E‖θ‖₀ − k)/|θ|``."""
        control = self._control
        if control is None:
            return {}
        share = control.expected() / control.total
        if self.constraint == "none":
            return {"l0": self.penalty * control.warm * share}
        return {"l0": control.multiplier * (share - self._target())}

    def param_groups(self, run: Run, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Gates have their own rate and no decay."""
        if self._control is None:
            return groups
        own = {id(gate) for gate in self._control.parameters()}
        rest = [{**group, "params": [p for p in group["params"] if id(p) not in own]} for group in groups]
        return [*rest, {"params": list(self._control.parameters()), "lr": self._gate_lr(run), "weight_decay": 0.0}]

    def callbacks(self, run: Run) -> list[Any]:
        """What happens between the steps."""
        from bigopt_plugins.compression.l0._callbacks import Gating, Projecting

        if self._control is not None:
            penalty = self.penalty if self.constraint == "none" else None
            return [Gating(self._control, self.warmup, penalty, self._sizes[1], self.ascent)]
        return [] if self._ball is None else [Projecting(self._ball, *self._sizes, self.warmup)]

    def finish(self, run: Run, fit: Fit) -> None:
        """Leaves a plain model: units removed, weights zero."""
        model = network(run, "l0")
        if self._monitor is not None:
            run.monitor, self._monitor = self._monitor, None
        if self._control is not None:
            closed = self._settle(run, model, self._control)
        else:
            assert self._ball is not None
            self._ball.project(self._sizes[1])
            closed = closed_units(self._ball) if isinstance(self._ball, UnitBall) else {}
        self._control = self._ball = None
        remove(run, model, closed)
        if self._layers:
            run.parts.append(KeepZeros(tuple(f"{name}.weight" for name in self._layers)))
        tell(run, model, self._layers)

    def _settle(self, run: Run, model: Network, control: Control) -> Mapping[str, list[int]]:
        """Ends the gates' work; gives the closed units by group."""
        run.report.value("l0_expected", float(control.expected().detach()))
        if self.constraint == "l0_ball":
            trimmed = control.trim(int(self._sizes[1]))
            if trimmed:
                run.report.note(f"{trimmed} gates were still open and were closed, so that the constraint holds")
        kept = control.kept()
        closed = {name: (~mask).nonzero().flatten().tolist() for name, mask in zip(control.names, kept, strict=True)}
        bake(model)
        return unread(model, self._units, closed) if self.gates == "units" else {}

    def _make_ball(self, run: Run, model: Network) -> WeightBall | UnitBall:
        norm = self.constraint.removesuffix("_ball")
        if self.gates == "units":
            return UnitBall(model, gateable_units(run, model), norm)
        layers = self._choose(run)
        return WeightBall(list(layers.values()), norm, other_weights(model, list(layers.values())))

    def _choose(self, run: Run) -> dict[str, nn.Module]:
        layers = weighted_layers(run)
        self._layers = tuple(layers)
        return layers

    def _projects(self) -> bool:
        return self.constraint == "l1_ball" or (self.constraint == "l0_ball" and self.method == "projection")

    def _target(self) -> float:
        return self._sizes[1] / self._sizes[0] if self._sizes[0] else 1.0

    def _feasible(self, least: float, start: float) -> None:
        if self._sizes[1] < least:
            raise RequestError(
                f"{self.constraint} of size {self._sizes[1]:g} cannot be reached: at least {least:g} of {start:g} stay "
                "(one unit of each group, and what has no gates)"
            )

    def _gate_lr(self, run: Run) -> float:
        if self.gate_lr is not None:
            return self.gate_lr
        epochs = run.options.recover.epochs
        return min(0.5, 25 / total_steps(run, self.epochs(run) if epochs is None else epochs))


def _wrong_choices(gates: str, constraint: str, method: str) -> list[str]:
    allowed = {
        "gates": (gates, ("units", "weights")),
        "constraint": (constraint, ("none", "l0_ball", "l1_ball")),
        "method": (method, ("lagrangian", "projection")),
    }
    return [
        f"{name}: got {value!r}, expected one of {', '.join(choices)}"
        for name, (value, choices) in allowed.items()
        if value not in choices
    ]
