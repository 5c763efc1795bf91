"""Residual branches: modules that can be left out because something is added to what they give."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bigopt.train.modes import evaluating
from bigopt_plugins.compression._channels import WEIGHTED, layers_of


class Removed(nn.Module):
    """In the place of a branch: a zero that an addition does not notice.

    Args:
        extra: further outputs, each None, of a module that gives a tuple; None for one that gives a tensor.
    """

    zero: Tensor

    def __init__(self, extra: int | None = None) -> None:
        super().__init__()
        self.extra = extra
        self.register_buffer("zero", torch.zeros(()), persistent=False)

    def forward(self, *_: Any, **__: Any) -> Any:
        """Zero, whatever comes in."""
        return self.zero if self.extra is None else (self.zero, *(None,) * self.extra)


@dataclass(frozen=True)
class Branch:
    """A removable residual branch.

    Attributes:
        name: the module whose output is added to the shortcut.
        parts: it, and modules whose only reader it is.
        extra: for each of the parts, how many outputs beside the first it gives; None for a plain tensor.
    """

    name: str
    parts: tuple[str, ...]
    extra: tuple[int | None, ...]

    def layers(self, model: nn.Module) -> dict[str, nn.Module]:
        """All convolutions and linear layers that go with the branch, by name."""
        inside = tuple(f"{part}." for part in self.parts)
        return {name: m for name, m in layers_of(model) if name in self.parts or name.startswith(inside)}

    def remove(self, model: nn.Module) -> None:
        """Takes the branch out of the model, in place."""
        for part, extra in zip(self.parts, self.extra, strict=True):
            put(model, part, Removed(extra))


def put(model: nn.Module, name: str, module: nn.Module) -> None:
    """Puts a module in the place of another one, in that one's mode."""
    module.train(model.get_submodule(name).training)
    model.set_submodule(name, module.to(next(model.parameters()).device))


def find_branches(model: nn.Module, example: Tensor) -> list[Branch]:
    """Branches that the shortcuts around them allow to go, even all at once; outer ones before what is in them.

    A module is a branch if the model gives the same with a plain zero in its place as with a tensor of zeros (so that
    its output is only ever added to something), and if with all branches gone the answer still depends on the input.
    Of a branch and the projection beside it, the larger one goes.

    Args:
        model: is left as it was.
        example: raw input ``(N, …)`` with rows that differ.
    """
    with evaluating(model), torch.no_grad():
        candidates = list(_candidates(model, example))
        candidates.sort(key=lambda branch: -sum(p.numel() for p in model.get_submodule(branch[0]).parameters()))
        accepted: list[tuple[str, int | None]] = []
        for candidate in candidates:
            with _without(model, [*accepted, candidate]):
                if _depends(model, example):
                    accepted.append(candidate)
        order = [name for name, _ in model.named_modules()]
        return [_whole(model, example, *each) for each in sorted(accepted, key=lambda each: order.index(each[0]))]


def _candidates(model: nn.Module, example: Tensor) -> Iterator[tuple[str, int | None]]:
    """Outermost modules with weights whose zero goes unnoticed."""
    passed: list[str] = []
    for name, module in list(model.named_modules()):
        inside = any(name.startswith(f"{outer}.") for outer in passed)
        if not name or inside or not any(isinstance(each, WEIGHTED) for each in module.modules()):
            continue
        extra = _allowed(model, example, name, module)
        if extra is not False:
            passed.append(name)
            yield name, extra


def _allowed(model: nn.Module, example: Tensor, name: str, module: nn.Module) -> int | None | bool:
    """False, or how many outputs beside the first a stand-in gives (None for a plain tensor)."""
    kinds: list[int | None] = []

    def zeros(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        first = output[0] if isinstance(output, tuple) else output
        kinds.append(len(output) - 1 if isinstance(output, tuple) else None)
        blank = torch.zeros_like(first)
        return (blank, *output[1:]) if isinstance(output, tuple) else blank

    handle = module.register_forward_hook(zeros)
    try:
        expected = _answer(model, example)
    finally:
        handle.remove()
    if expected is None or len(kinds) != 1:
        return False
    with _without(model, [(name, kinds[0])]):
        got = _answer(model, example)
        same = got is not None and got.shape == expected.shape and torch.allclose(got, expected, atol=1e-6, rtol=1e-5)
        return kinds[0] if same and _depends(model, example) else False


def _whole(model: nn.Module, example: Tensor, name: str, extra: int | None) -> Branch:
    """The branch with everything that only it reads."""
    parts: list[tuple[str, int | None]] = [(name, extra)]
    used = _used(model, example)
    with _without(model, parts):
        expected, still = _answer(model, example), _used(model, example)
    for other, module in list(model.named_modules()):
        own = {f"{other}.{leaf}" for leaf, _ in module.named_parameters()}
        layered = any(isinstance(each, WEIGHTED) for each in module.modules())
        covered = any(f"{other}.".startswith(f"{part}.") or part.startswith(f"{other}.") for part, _ in parts)
        if not other or not layered or covered or own & still or not own & used:
            continue
        for kind in (None, 0, 1, 2):
            with _without(model, [*parts, (other, kind)]):
                got = _answer(model, example)
            if got is not None and expected is not None and torch.equal(got, expected):
                parts.append((other, kind))
                break
    return Branch(name, tuple(part for part, _ in parts), tuple(kind for _, kind in parts))


def _used(model: nn.Module, example: Tensor) -> set[str]:
    """Parameters that the answer depends on."""
    named = dict(model.named_parameters())
    frozen = [p for p in named.values() if not p.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(True)
    try:
        with torch.enable_grad():
            grads = torch.autograd.grad(model(example).sum(), list(named.values()), allow_unused=True)
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
    return {name for name, grad in zip(named, grads, strict=True) if grad is not None}


@contextmanager
def _without(model: nn.Module, parts: Sequence[tuple[str, int | None]]) -> Iterator[None]:
    """The model without these modules while the block runs."""
    held = [(name, model.get_submodule(name)) for name, _ in parts]
    modes = [module.training for _, module in held]
    for name, extra in parts:
        put(model, name, Removed(extra))
    try:
        yield
    finally:
        for (name, module), mode in zip(held, modes, strict=True):
            model.set_submodule(name, module)
            module.training = mode


def _answer(model: Callable[[Tensor], Any], example: Tensor) -> Tensor | None:
    """The outputs, or None where the model cannot run as it is, or gives something that is not finite."""
    try:
        out = model(example)
    except Exception:
        return None  # whatever a model makes of a missing dimension: it needs the module
    return out if isinstance(out, Tensor) and bool(torch.isfinite(out).all()) else None


def _depends(model: Callable[[Tensor], Any], example: Tensor) -> bool:
    """Whether rows that differ get answers that differ."""
    out = _answer(model, example)
    if out is None or out.ndim == 0 or len(out) < 2:
        return False
    return bool((out - out[0]).abs().max() > 1e-6 * out.abs().max().clamp_min(1e-6))
