"""From a command line to the plan of its sweep, with everything that is wrong with it said before anything starts."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from bigopt import registry
from bigopt.config import Checked, check
from bigopt.config.groups import PLUGINS, SETTINGS, STEPS
from bigopt.search.asked import Asked
from bigopt.search.limits import limits, number
from bigopt.search.needs import skipped
from bigopt.search.plan import Plan
from bigopt.search.space import Space
from bigopt.search.storage import Storage
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.objective import parse_objective
from bigopt.vocabulary.tuner import Tuner

DEFAULT_TRIALS = 20
MOST_CORNERS = 40
RUN_CONTROL = ("cache", "tracking", "resume", "trainer.threads", "trainer.workers", "trainer.checkpoint_seconds")
"""Keys that may differ when a study goes on."""


@dataclass(kw_only=True)
class Request(Asked):
    """What was asked for.

    Attributes:
        folder: the sweep's.
        study: name of the study.
        task: says whether a configuration's data are for classification or regression; None asks nobody.
        objective: what is optimised, once it is known.
    """

    folder: Path
    study: str
    task: Callable[[Checked], str] | None = None
    objective: dict[str, str] = field(default_factory=dict)

    def plan(self) -> Plan:
        """The plan.

        Raises:
            RequestError: everything that is wrong with the request.
        """
        space, checked, settings = self.space, self.checked, self.sweeper
        storage, workers = (
            Storage.of(settings.get("storage"), self.folder),
            number(self.sweeper, "n_jobs", 0, whole=True),
        )
        enqueue = [space.checked(point, "hydra.sweeper.enqueue") for point in settings.get("enqueue") or ()]
        _ = (limits(settings, None), self.confirming)  # what is wrong with them is said before data are looked at
        self.objective = self._objective()
        context = self._context()
        tuner = make_tuner(checked.tuner, context)
        assert tuner is not None
        if context["n_trials"] is None and not _plans(tuner, space):
            context["n_trials"] = DEFAULT_TRIALS
            tuner = make_tuner(checked.tuner, context)
            assert tuner is not None
        self._refuse_early_stopping(tuner)
        if settings.get("worth") is not None and len(self.objective) > 1:
            raise RequestError(f"hydra.sweeper.worth: got {len(self.objective)} objectives, expected one")
        return Plan(
            study=self.study,
            folder=self.folder,
            storage=storage,
            space=space,
            objectives=parse_objective(self.objective),
            tuner=tuner,
            limits=limits(self.sweeper, context["n_trials"]),
            workers=workers,
            enqueue=enqueue,
            fixed=self._fixed(),
            context=context,
        )

    @cached_property
    def checked(self) -> Checked:
        """The first configuration that the space leads to; all its corners are checked.

        Raises:
            RequestError: what is wrong with any of them.
        """
        from bigopt.config._job import job_config

        found: list[Checked] = []
        problems: list[str] = []
        for point in self.space.corners()[:MOST_CORNERS] or [{}]:
            try:
                found.append(check(job_config(self.composed(self.space.lines(point))), composed=True))
            except RequestError as error:
                problems += error.problems
        if problems:
            raise RequestError(list(dict.fromkeys(problems)))
        return found[0]

    def _context(self) -> dict[str, Any]:
        """What the run fills into the tuner's arguments."""
        checked = self.checked
        wanted = self.sweeper.get("n_trials")
        return {
            "seed": checked.seed,
            "n_trials": number(self.sweeper, "n_trials", 1, whole=True) if wanted is not None else None,
            "max_resource": self._epochs(),
            "directions": list(self.objective.values()),
        }

    def _epochs(self) -> int:
        """Epochs of the objective's stage: the last one that trains, as far as the configuration tells."""
        checked, largest = self.checked, int(self.checked.settings.trainer.max_epochs)
        for each in self.space.parameters:
            if each.name == "trainer.max_epochs":
                largest = int(max(each.choices) if each.kind == "choice" else each.high)
        for step in reversed(checked.compression):
            epochs: int | None = step.options.recover.epochs
            if epochs is None or epochs > 0:
                return epochs if epochs is not None else max(1, round(largest / 4))
        return largest

    def _refuse_early_stopping(self, tuner: Tuner) -> None:
        """What is stopped early needs one objective that has a value after every epoch."""
        objective = self.objective
        if not tuner.stops_early:
            return
        name = self.checked.tuner["name"]
        if len(objective) > 1:
            raise RequestError(
                f"objective: got {len(objective)} objectives with tuner={name}, which stops early; expected one, "
                "or a tuner that stops none (nsga2, or random and bayesian with tuner.pruner=none)"
            )
        metric = next(iter(objective))
        if not metric.startswith("val/"):
            raise RequestError(
                f"objective: got {metric}, which has no value per epoch, with tuner={name}, which stops trials early; "
                "expected a validation metric such as val/accuracy, or a tuner that stops none (tuner.pruner=none)"
            )

    def _fixed(self) -> dict[str, str]:
        """What must not change when the study goes on, in words by name."""
        checked = self.checked
        said = {
            key: line.partition("=")[2] if "=" in line else line
            for line, key in self.split[1]
            if not any(key == control or key.startswith(f"{control}.") for control in RUN_CONTROL)
        }
        return {
            **{
                key: text for key, text in said.items() if not key.startswith(("hydra", "objective", "tuner", "search"))
            },
            "objective": json.dumps(self.objective),
            "tuner": json.dumps(checked.resolved["tuner"], sort_keys=True),
            "seed": str(checked.seed),
        }

    def _objective(self) -> dict[str, str]:
        """What is optimised; where the configuration does not say, it follows from the data."""
        checked = self.checked
        task = self.task(checked) if self.task is not None else "classification"
        if not checked.objective_given and task == "regression":
            return {"val/loss": "min"}
        return dict(checked.settings.objective)

    @property
    def confirming(self) -> int:
        """Fresh seeds that the winner is trained on."""
        return int(number(self.sweeper, "confirm", 0, whole=True))

    @property
    def plotting(self) -> bool:
        """Whether plots are drawn."""
        return bool(self.sweeper.get("plots", True))

    def described(self, lines: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Choices by config group, and the resolved configuration, of a trial's overrides."""
        from bigopt.config._job import job_config

        cfg = self.composed(lines)
        chosen = {str(group): choice for group, choice in cfg.hydra.runtime.choices.items()}
        groups = [group for group in (*PLUGINS, *SETTINGS) if group in chosen or group in STEPS]
        choices = {group: list(cfg.get(group) or {}) if group in STEPS else chosen[group] for group in groups}
        return choices, check(job_config(cfg), composed=True).resolved

    def trial_lines(self) -> list[str]:
        """Further overrides of every trial: what its objectives do not need is left out, and threads are shared."""
        given = {key for _, key in self.split[1]}
        settings = self.checked.settings
        return skipped(self.objective, settings.budget, given, number(self.sweeper, "n_jobs", 0, whole=True))


def make_tuner(spec: Mapping[str, Any], context: Mapping[str, Any]) -> Tuner | None:
    """The tuner that a configuration names, filled from the run; None for ``none``.

    Raises:
        RequestError: its arguments are wrong.
    """
    arguments = {name: value for name, value in spec.items() if name != "name"}
    made = registry.build("tuners", str(spec["name"]), arguments, context, path="tuner")
    return Tuner.of(made, int(context["seed"]))


def _plans(tuner: Tuner, space: Space) -> bool:
    """Whether a tuner knows by itself how many configurations it tries."""
    if tuner.scheduler is not None:
        return tuner.scheduler.total is not None
    if tuner.points is None:
        return False
    try:
        return next(iter(tuner.points(space.distributions)), None) is not None
    except RequestError:
        return False  # an endless sequence
