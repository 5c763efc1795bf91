"""Which layer of the student is compared with which of the teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bigopt.train.modes import evaluating
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.patterns import SHOWN, fits, unknown
from bigopt.vocabulary.run import INPUT, recording
from bigopt_plugins.transfer._layers import head_name

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Pair:
    """Two layers that are compared.

    Attributes:
        student: name of the student's module, as a tap.
        teacher: name of the teacher's.
        grid: places along each side of the coarser one; empty for vectors.
        channels: the teacher's.
    """

    student: str
    teacher: str
    grid: Shape
    channels: int


def shapes(model: nn.Module, x: Tensor) -> dict[str, Shape]:
    """Shape of what every module gives for inputs ``x``, without the batch, in the order in which they end."""
    names = [name for name, _ in model.named_modules() if name]
    with torch.no_grad(), evaluating(model), recording(model, names) as seen:
        ended: list[str] = []
        modules = {id(module): name for name, module in model.named_modules()}
        hooks = [
            module.register_forward_hook(lambda module, *_: ended.append(modules[id(module)]))
            for name, module in model.named_modules()
            if name
        ]
        try:
            model(x)
        finally:
            for hook in hooks:
                hook.remove()
    last = {name: place for place, name in enumerate(ended)}
    found = {name: tuple(out.shape[1:]) for name, out in seen.items() if isinstance(out, Tensor)}
    return {name: found[name] for name in sorted(found, key=lambda name: last.get(name, -1))}


def embedding(model: nn.Module) -> str:
    """Tap of what enters the layer that gives the logits."""
    return head_name(model) + INPUT


def chosen(
    student: nn.Module, teacher: nn.Module, x: Tensor, mine: Sequence[str] = (), theirs: Sequence[str] = ()
) -> list[Pair]:
    """Pairs of layers in the order of the student's depth.

    Without patterns: of each resolution that both nets have, the last layer with it; where they share none, the last
    maps of each; where one of them has no maps, what enters the layers that give the logits.

    Args:
        student: the net that learns.
        teacher: the net that is learned from.
        x: a few inputs.
        mine: name patterns of the student's layers; the k-th that fits belongs to the k-th of the teacher's.
        theirs: name patterns of the teacher's layers.

    Raises:
        RequestError: patterns that fit nothing, other numbers of layers, or layers of different kinds (maps,
            tokens, vectors).
    """
    given, taught = shapes(student, x), shapes(teacher, x)
    if bool(mine) != bool(theirs):
        raise RequestError(
            "transfer.student_layers, transfer.teacher_layers: only one is set; set both, or none for default pairs"
        )
    if not mine:
        return _default(student, teacher, given, taught)
    left = _matching("student_layers", mine, given)
    right = _matching("teacher_layers", theirs, taught)
    if len(left) != len(right):
        raise RequestError(
            f"transfer.student_layers fit {len(left)} layers ({', '.join(left[:SHOWN])}), transfer.teacher_layers "
            f"{len(right)} ({', '.join(right[:SHOWN])}); they are compared in pairs"
        )
    return [_pair(a, given[a], b, taught[b]) for a, b in zip(left, right, strict=True)]


def middle(pairs: Sequence[Pair]) -> list[Pair]:
    """The one pair that FitNets would take: half-way through the net."""
    return [pairs[len(pairs) // 2]] if pairs else []


def _default(student: nn.Module, teacher: nn.Module, given: dict[str, Shape], taught: dict[str, Shape]) -> list[Pair]:
    left, right = _stages(given), _stages(taught)
    common = [size for size in left if size in right]
    if common:
        return [_pair(left[size], given[left[size]], right[size], taught[right[size]]) for size in common]
    ends = [(a, b) for a in reversed(left) for b in reversed(right) if len(a) == len(b)]
    if ends:
        a, b = left[ends[0][0]], right[ends[0][1]]
        return [_pair(a, given[a], b, taught[b])]
    inner, outer = student.get_submodule(head_name(student)), teacher.get_submodule(head_name(teacher))
    assert isinstance(inner, nn.Linear) and isinstance(outer, nn.Linear)
    return [Pair(embedding(student), embedding(teacher), (), outer.in_features)]


def _stages(found: dict[str, Shape]) -> dict[Shape, str]:
    """The last layer of each resolution with more than one place, in the order of depth."""
    stages: dict[Shape, str] = {}
    for name, shape in found.items():
        places = _places(shape)
        if "normalize" not in name.split(".")[:2] and places and max(places) > 1:
            stages.pop(places, None)
            stages[places] = name
    return stages


def _places(shape: Shape) -> Shape:
    """Height and width of maps, the length of tokens, nothing of vectors."""
    return shape[1:] if len(shape) == 3 else shape[:1] if len(shape) == 2 else ()


def _channels(shape: Shape) -> int:
    return shape[0] if len(shape) == 3 else shape[-1]


def _pair(student: str, given: Shape, teacher: str, taught: Shape) -> Pair:
    if len(given) != len(taught) or len(given) not in (1, 2, 3):
        raise RequestError(
            f"transfer: {student} gives {list(given)} and {teacher} gives {list(taught)} for one sample; "
            "expected two maps, two sequences of tokens or two vectors"
        )
    grid = tuple(min(a, b) for a, b in zip(_places(given), _places(taught), strict=True))
    return Pair(student, teacher, grid, _channels(taught))


def _matching(argument: str, patterns: Sequence[str], found: dict[str, Shape]) -> list[str]:
    """Names that fit, pattern by pattern."""
    problems = unknown(f"transfer.{argument}", patterns, list(found), "layer")
    if problems:
        raise RequestError(problems)
    return list(dict.fromkeys(name for pattern in patterns for name in found if fits(name, [pattern])))
