"""How bigopt reads an Optuna study: one configuration may have been tried several times, and counts once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bigopt.vocabulary import tuner
from bigopt.vocabulary.tuner import Standing

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

ROOT = "bigopt:configuration"  # number of the configuration's first try
ATTEMPT = "bigopt:attempt"  # how many tries came before
LOSSES = "bigopt:losses"  # how many of them died
OWNER = "bigopt:owner"  # the process that runs it
BEAT = "bigopt:beat"  # its newest sign of life
UNTIL = "bigopt:until"  # epochs that it is told to train to
PAUSED = "bigopt:paused"  # waits for its scheduler with a checkpoint
BASE = "bigopt:base"  # epochs of the run before the objective's stage
REASON = "bigopt:reason"  # why it failed
VOID = "bigopt:void"  # does not count: a forbidden combination, one too many, or another study's
DRAW = "bigopt:draw"  # number that the sampler's seed follows from; a retried try keeps it
POINT = "bigopt:point"  # position in a tuner's own list of points
REPORT = "bigopt:report"  # figures of the final row that people look for


@dataclass(frozen=True)
class Configuration:
    """One configuration with its tries.

    Attributes:
        number: of its first try.
        tries: oldest first; the last one counts.
    """

    number: int
    tries: tuple[FrozenTrial, ...]

    @property
    def last(self) -> FrozenTrial:
        """The try that counts."""
        return self.tries[-1]

    @property
    def state(self) -> str:
        """``waiting``, ``running``, ``paused``, ``complete``, ``pruned`` or ``failed``."""
        name = self.last.state.name.lower()
        if name == "running" and self.last.user_attrs.get(PAUSED):
            return "paused"
        return "failed" if name == "fail" else name

    @property
    def draw(self) -> int:
        """The number that its sampler's seed follows from."""
        return int(self.last.user_attrs.get(DRAW, self.number))

    @property
    def started(self) -> bool:
        """Whether it was ever begun; a point in the queue was not."""
        return len(self.tries) > 1 or self.state != "waiting" or ROOT in self.last.user_attrs

    @property
    def standing(self) -> Standing:
        """The state in a scheduler's words."""
        if self.state in ("complete", "pruned"):
            return "done"
        return "failed" if self.state == "failed" else "paused" if self.state == "paused" else "running"


def tries(study: optuna.Study) -> list[FrozenTrial]:
    """All trials of a study as they are kept, for reading only."""
    return study._storage.get_all_trials(study._study_id, deepcopy=False)


def configurations(trials: Sequence[FrozenTrial]) -> list[Configuration]:
    """The configurations of a study in the order in which they were first asked for."""
    found: dict[int, list[FrozenTrial]] = {}
    for trial in trials:
        if VOID not in trial.user_attrs:
            found.setdefault(trial.user_attrs.get(ROOT, trial.number), []).append(trial)
    return [
        Configuration(number, tuple(sorted(tries, key=lambda t: (t.user_attrs.get(ATTEMPT, 0), -t.number))))
        for number, tries in sorted(found.items())
    ]


def scheduled(known: Sequence[Configuration]) -> list[tuner.Trial]:
    """The started configurations as a scheduler sees them."""
    return [
        tuner.Trial(
            id=position,
            values=dict(each.last.intermediate_values),
            until=int(each.last.user_attrs.get(UNTIL, 0)),
            standing=each.standing,
        )
        for position, each in enumerate(each for each in known if each.started)
    ]


def counts(known: Sequence[Configuration]) -> dict[str, int]:
    """Number of configurations by state, those without any left out."""
    found: dict[str, int] = {}
    for each in known:
        found[each.state] = found.get(each.state, 0) + 1
    return found


def reason(trial: FrozenTrial) -> str:
    """Why a try failed, empty where it did not."""
    text: Any = trial.user_attrs.get(REASON, "")
    return str(text)
