"""What activations see of training samples, and the fits that follow from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from bigopt.vocabulary.run import Run
from bigopt_plugins.compression.activation._polynomial import Moments, Polynomial
from bigopt_plugins.compression.activation._staircase import Staircase, best_step

ROWS = 128
"""Samples of one forward pass."""

VALUES = 1 << 16
"""About how many values of a layer a staircase is fitted on."""


@dataclass
class Seen:
    """What one activation was given.

    Attributes:
        low: least input.
        high: greatest input.
        shapes: coefficient shapes that would give each channel its own polynomial.
        count: values.
    """

    low: float = float("inf")
    high: float = float("-inf")
    shapes: set[tuple[int, ...]] = field(default_factory=set)
    count: int = 0

    def add(self, x: Tensor) -> None:
        """Takes in one input."""
        self.low, self.high = min(self.low, float(x.min())), max(self.high, float(x.max()))
        self.shapes.add((x.shape[1], 1, 1) if x.ndim == 4 else (x.shape[-1],))
        self.count += x.numel()


def observe(run: Run, modules: Mapping[str, nn.Module], samples: int, take: Callable[[str, Tensor], None]) -> None:
    """Gives every input of these activations on training samples to ``take``, with the model in evaluation mode."""

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _module, inputs: take(name, inputs[0].detach().float())

    training = [(module, module.training) for module in run.model.modules()]
    with ExitStack() as stack, torch.no_grad():
        for name, module in modules.items():
            stack.callback(module.register_forward_pre_hook(watch(name)).remove)
        run.model.eval()
        for x in _batches(run, samples):
            run.model(x)
    for module, mode in training:
        module.training = mode


def ranges(run: Run, modules: Mapping[str, nn.Module], samples: int) -> dict[str, Seen]:
    """What each activation is given; nothing for those that never run."""
    seen: dict[str, Seen] = {}
    observe(run, modules, samples, lambda name, x: seen.setdefault(name, Seen()).add(x))
    return seen


def fit_polynomials(
    run: Run, modules: Mapping[str, nn.Module], seen: Mapping[str, Seen], order: int, channels: bool, samples: int
) -> Iterator[tuple[str, Polynomial, float]]:
    """The least-squares polynomial of each activation on what it is given, with its root mean squared error."""
    moments = {name: Moments(order, facts.low, facts.high) for name, facts in seen.items()}
    apart = {name: channels and len(facts.shapes) == 1 for name, facts in seen.items()}

    def take(name: str, x: Tensor) -> None:
        y = modules[name].forward(x.clone())  # a clone, since it may work in place
        if apart[name]:
            axis = 1 if x.ndim == 4 else x.ndim - 1
            x, y = x.movedim(axis, 0).flatten(1), y.movedim(axis, 0).flatten(1)
        else:
            x, y = x.reshape(1, -1), y.reshape(1, -1)
        moments[name].add(x.cpu(), y.cpu())

    observe(run, {name: modules[name] for name in seen}, samples, take)
    for name, facts in seen.items():
        coefficients, rmse = moments[name].solve()
        shape = next(iter(facts.shapes)) if apart[name] else (1,)
        polynomial = Polynomial(order, facts.low, facts.high, shape)
        polynomial.set(coefficients.float())
        yield name, polynomial, float(rmse.square().mean().sqrt())


def fit_staircases(
    run: Run, modules: Mapping[str, nn.Module], seen: Mapping[str, Seen], levels: int, rule: str, samples: int
) -> Iterator[tuple[str, Staircase, float]]:
    """The staircase of each activation with the least squared error on what it is given."""
    values: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in seen}

    def take(name: str, x: Tensor) -> None:
        stride = max(1, seen[name].count // VALUES) | 1  # odd, so that it does not walk along one channel
        flat = x.flatten()[::stride].cpu()
        values[name].append((flat, modules[name].forward(flat.clone())))

    observe(run, {name: modules[name] for name in seen}, samples, take)
    for name, pairs in values.items():
        step, rmse = best_step(torch.cat([x for x, _ in pairs]), torch.cat([y for _, y in pairs]), levels)
        yield name, Staircase(levels, rule, step), rmse


def _batches(run: Run, samples: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(run.seed)
    chosen = torch.randperm(len(run.data.train), generator=generator)[:samples]
    device = next((p.device for p in run.model.parameters()), torch.device("cpu"))
    for index in chosen.split(ROWS):
        yield run.data.train.take(index).to(device)
