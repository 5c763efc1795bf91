"""What is learned from a teacher's layers beside its answers: targets of the teacher, terms of the loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from bigopt.vocabulary.errors import RequestError
from bigopt_plugins.transfer._layers import head_name
from bigopt_plugins.transfer.distillation._attention import attention_loss, attention_map
from bigopt_plugins.transfer.distillation._hints import Regressor, hint, hint_loss
from bigopt_plugins.transfer.distillation._pairs import Pair, chosen, embedding, middle, shapes
from bigopt_plugins.transfer.distillation._relational import angle_loss, distance_loss


@dataclass(frozen=True)
class Weights:
    """Weights of the terms; 0 leaves one out."""

    hints: float = 0.0
    attention: float = 0.0
    distance: float = 0.0
    angle: float = 0.0

    @property
    def layers(self) -> bool:
        """Whether any layer of a teacher is wanted."""
        return any((self.hints, self.attention, self.distance, self.angle))


@dataclass(frozen=True)
class Terms:
    """What one teacher's layers teach.

    Attributes:
        number: of the teacher.
        hints: pairs of layers for hints.
        attention: pairs of layers for attention transfer.
        embedding: taps of the embeddings, student and teacher, for the relational terms; None without these.
    """

    number: int
    hints: list[Pair] = field(default_factory=list)
    attention: list[Pair] = field(default_factory=list)
    embedding: tuple[str, str] | None = None

    def wanted(self) -> list[str]:
        """Taps of the teacher."""
        names = [pair.teacher for pair in (*self.hints, *self.attention)]
        return list(dict.fromkeys(names + ([self.embedding[1]] if self.embedding else [])))

    def asked(self) -> list[str]:
        """Taps of the student."""
        names = [pair.student for pair in (*self.hints, *self.attention)]
        return list(dict.fromkeys(names + ([self.embedding[0]] if self.embedding else [])))

    def without(self, missing: set[str]) -> Terms:
        """The same without layers that the student has lost."""
        return Terms(
            self.number,
            [pair for pair in self.hints if pair.student not in missing],
            [pair for pair in self.attention if pair.student not in missing],
            None if self.embedding and self.embedding[0] in missing else self.embedding,
        )

    def targets(self, seen: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the student is to reach, by name, each ``(N, …)``; follows from each row alone."""
        found = {f"hint.{self.number}.{i}": hint(seen[p.teacher], p.grid) for i, p in enumerate(self.hints)}
        for i, pair in enumerate(self.attention):
            found[f"attention.{self.number}.{i}"] = attention_map(seen[pair.teacher], pair.grid)
        if self.embedding:
            found[f"embedding.{self.number}"] = seen[self.embedding[1]].float().flatten(1)
        return found

    def regressors(self, student: nn.Module, x: Tensor) -> dict[str, nn.Module]:
        """A regressor for each hint, in the student's present shape."""
        if not self.hints:
            return {}
        found = shapes(student, x)
        made: dict[str, nn.Module] = {}
        for i, pair in enumerate(self.hints):
            shape = found.get(pair.student) or (_head(student).in_features,)
            maps = len(shape) == 3
            made[f"regressor-{self.number}-{i}"] = Regressor(shape[0] if maps else shape[-1], pair.channels, maps)
        return made

    def loss(
        self,
        weights: Weights,
        taps: Mapping[str, Tensor],
        targets: Mapping[str, Tensor],
        regressors: Mapping[str, nn.Module],
    ) -> dict[str, Tensor]:
        """Weighted terms by name."""
        n = self.number
        terms: dict[str, Tensor] = {}
        if self.hints:
            losses = [
                hint_loss(regressors[f"regressor-{n}-{i}"], hint(taps[p.student], p.grid), targets[f"hint.{n}.{i}"])
                for i, p in enumerate(self.hints)
            ]
            terms["hints"] = weights.hints * torch.stack(losses).sum()
        if self.attention:
            losses = [
                attention_loss(attention_map(taps[p.student], p.grid), targets[f"attention.{n}.{i}"])
                for i, p in enumerate(self.attention)
            ]
            terms["attention"] = weights.attention / 2 * torch.stack(losses).sum()
        if self.embedding:
            mine, theirs = taps[self.embedding[0]].float().flatten(1), targets[f"embedding.{n}"]
            if weights.distance:
                terms["distance"] = weights.distance * distance_loss(mine, theirs)
            if weights.angle:
                terms["angle"] = weights.angle * angle_loss(mine, theirs)
        return terms


def terms_for(
    student: nn.Module,
    teacher: nn.Module,
    number: int,
    x: Tensor,
    weights: Weights,
    mine: Sequence[str] = (),
    theirs: Sequence[str] = (),
) -> Terms:
    """What one teacher's layers are to teach.

    Args:
        student: the net that learns.
        teacher: the net that is learned from.
        number: of the teacher.
        x: a few inputs, for the shapes.
        weights: of the terms.
        mine: name patterns of the student's layers.
        theirs: name patterns of the teacher's layers.

    Raises:
        RequestError: the teacher has no layers, or none that can be compared.
    """
    if not any(True for _ in teacher.parameters()):
        raise RequestError(
            "transfer: hints, attention, distance and angle need a teacher whose layers can be read; an ONNX file only "
            "gives answers"
        )
    pairs: list[Pair] = []
    if weights.hints or weights.attention:
        pairs = chosen(student, teacher, x, mine, theirs)
    maps = [pair for pair in pairs if pair.grid]
    if weights.attention and not maps:
        raise RequestError("transfer.attention: needs layers that give maps or tokens, in both nets")
    return Terms(
        number,
        hints=(pairs if mine else middle(pairs)) if weights.hints else [],
        attention=maps if weights.attention else [],
        embedding=(embedding(student), embedding(teacher)) if weights.distance or weights.angle else None,
    )


def _head(model: nn.Module) -> nn.Linear:
    head = model.get_submodule(head_name(model))
    assert isinstance(head, nn.Linear)
    return head
