"""The one abstraction: an object whose optional hooks name the places where it may act."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bigopt.vocabulary.batch import Batch, Output
    from bigopt.vocabulary.data import Split
    from bigopt.vocabulary.run import History, Run

    Predict = Callable[[Split], Tensor]

State = Literal["trainable", "frozen"]


class Fit(Protocol):
    """The only way to train. Memoised: a killed run that is started again goes on where it was."""

    def __call__(
        self,
        run: Run,
        epochs: int | None = None,
        *,
        lr: float | None = None,
        name: str = "fit",
        parts: Sequence[Part] | None = None,
        share: bool = False,
    ) -> History:
        """Trains ``run.model`` in place and leaves it at its best validation epoch.

        Args:
            run: what to train, on which data, judged by which monitor.
            epochs: passes over the training split; None means ``trainer.max_epochs``; 0 returns at once.
            lr: peak learning rate; None means ``optimizer.lr``.
            name: what progress, history and checkpoints call this training.
            parts: whose hooks act; None means ``run.parts``.
            share: keep the result in the stage cache for other runs (baseline, teacher, source model).
        """
        ...


class Part:
    """A compression step, a transfer strategy or a training trick.

    The constructor's typed signature is the schema of the configuration; there is no second declaration. Lasting
    state belongs in parameters and buffers of the model or of :meth:`modules`, never in attributes of the Part.

    Class attributes:
        needs: state of the model that the Part can work on.
        leaves: state in which it leaves the model (an exported or converted graph is frozen).
        strengths: for Parts with :meth:`apply`: increasing strengths that a scan or a bisection may try, each in
            [0, 1], where 0 changes nothing. Empty for Parts without a strength.
    """

    needs: ClassVar[State] = "trainable"
    leaves: ClassVar[State] = "trainable"
    strengths: ClassVar[tuple[float, ...]] = ()

    def prepare(self, run: Run, fit: Fit) -> None:
        """Changes the model before training: new head, freeze, gates, fake quantizers; may train a teacher."""

    def modules(self, run: Run) -> dict[str, nn.Module]:
        """Auxiliary modules: optimised, moved and checkpointed with the model, never exported or counted."""
        return {}

    def taps(self, run: Run) -> Sequence[str]:
        """Names of modules whose outputs (``<name>/input``: input) :meth:`loss` wants in ``output.taps``."""
        return ()

    def batch(self, run: Run, batch: Batch) -> Batch:
        """The batch to train on: augmented, or with unlabelled or target-domain rows mixed in."""
        return batch

    def loss(self, run: Run, batch: Batch, output: Output) -> dict[str, Tensor]:
        """Named scalar terms that are added to the task loss; the name ``task`` replaces it."""
        return {}

    def metrics(self, run: Run, model: nn.Module, predict: Predict) -> dict[str, float]:
        """Further values of a model, such as label-free ones; one of them may be the run's monitor.

        Asked after every epoch, for every row and wherever the driver compares models.

        Args:
            run: on whose data the model is judged.
            model: the model in memory.
            predict: outputs ``(N, K)`` for every sample of a split, float32 on the CPU: of the model, or of the file
                made of it where there is one.

        Returns:
            values by name with a prefix of their own (``target/agreement``).
        """
        return {}

    def param_groups(self, run: Run, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The optimizer's parameter groups, changed: other learning rates, other decay."""
        return groups

    def callbacks(self, run: Run) -> list[Any]:
        """Fresh Lightning callbacks for one fit; one run fits several times."""
        return []

    def finish(self, run: Run, fit: Fit) -> None:
        """Changes the model after training: remove channels, convert to integers, re-estimate batch norm."""

    def apply(self, run: Run, strength: float, only: str | None = None) -> None:
        """Compresses ``run.model`` in place, by this much, without training.

        Args:
            run: what to compress.
            strength: share in [0, 1] of what is still there to take away; applying a, then b leaves
                ``(1 - a) * (1 - b)``.
            only: name of the one layer to act on (for the sensitivity scan); None means all.
        """
        raise NotImplementedError(f"{type(self).__name__} has no strength")

    def strength(self) -> float | None:
        """The strength that the configuration asks for; None for Parts without a strength."""
        return None

    def epochs(self, run: Run) -> int:
        """Epochs after this step unless ``recover.epochs`` is set: a quarter of the first stage's, at least 1."""
        return max(1, round(run.settings.trainer.max_epochs / 4))

    def recovery_lr(self, run: Run) -> float:
        """Peak learning rate after this step as a share of ``optimizer.lr``, unless ``recover.lr`` is set."""
        return 0.3

    def extra_epochs(self, run: Run) -> int:
        """Epochs that :meth:`prepare` trains before anything is taken away; the control is given them as well."""
        return 0

    def needs_scan(self) -> bool:
        """Whether the step wants a sensitivity scan, also where ``sensitivity`` is off."""
        return False

    def scanned(self, run: Run, rows: Sequence[Mapping[str, Any]]) -> None:
        """Told of a sensitivity scan, before the step is taken.

        Args:
            run: what was scanned.
            rows: ``layer``, ``strength``, ``value`` of the objective and ``drop`` of every cell.
        """

    def layers(self, run: Run) -> Sequence[str]:
        """Names of the layers that ``apply(only=…)`` can act on."""
        return ()

    def bits(self) -> tuple[int, int] | None:
        """Widths of weights and activations after this step, for counting bit operations; None leaves them."""
        return None


def further_metrics(run: Run, parts: Sequence[Part], model: nn.Module, predict: Predict) -> dict[str, float]:
    """What all Parts' :meth:`Part.metrics` say of a model; of equal names the last counts."""
    return {name: value for part in parts for name, value in part.metrics(run, model, predict).items()}
