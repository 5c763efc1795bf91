"""From a command line to the plan of its sweep, with everything that is wrong with it said before anything starts."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from bigopt import registry
from bigopt.config import Checked, check
from bigopt.config._messages import has_key, unknown
from bigopt.config.groups import PLUGINS, SETTINGS, STEPS
from bigopt.search.conditions import Rule, rules
from bigopt.search.needs import skipped
from bigopt.search.parameter import Parameter
from bigopt.search.plan import Limits, Plan
from bigopt.search.space import Space, belonging, ordered
from bigopt.search.storage import Storage
from bigopt.search.syntax import fixed_choice, parameter, parameters, parse
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.objective import parse_objective
from bigopt.vocabulary.tuner import Tuner

DEFAULT_TRIALS = 20
MOST_CORNERS = 40
RUN_CONTROL = ("cache", "tracking", "resume", "trainer.threads", "trainer.workers", "trainer.checkpoint_seconds")
"""Keys that may differ when a study goes on."""


@dataclass
class Request:
    """What was asked for.

    Attributes:
        lines: the command line's overrides of the job.
        sweeper: the settings of ``hydra.sweeper``, references to the environment resolved.
        compose: the whole configuration of some overrides.
        folder: the sweep's.
        study: name of the study.
        loader: Hydra's config loader, for ``glob(…)``.
        task: says whether a configuration's data are for classification or regression; None asks nobody.
        objective: what is optimised, once it is known.
    """

    lines: Sequence[str]
    sweeper: Mapping[str, Any]
    compose: Callable[[list[str]], DictConfig]
    folder: Path
    study: str
    loader: Any = None
    task: Callable[[Checked], str] | None = None
    objective: dict[str, str] = field(default_factory=dict)
    _composed: dict[tuple[str, ...], DictConfig] = field(default_factory=dict)

    def plan(self) -> Plan:
        """The plan.

        Raises:
            RequestError: everything that is wrong with the request.
        """
        space, checked, settings = self.space, self.checked, self.sweeper
        storage, workers = Storage.of(settings.get("storage"), self.folder), self._number("n_jobs", 0, whole=True)
        enqueue = [space.checked(point, "hydra.sweeper.enqueue") for point in settings.get("enqueue") or ()]
        _ = (self._limits(None), self.confirming)  # what is wrong with them is said before data are looked at
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
            limits=self._limits(context["n_trials"]),
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

    @cached_property
    def space(self) -> Space:
        """What is searched.

        Raises:
            RequestError: everything that is wrong with it.
        """
        searched, fixed = self._split
        lines = [(line, key) for line, key in fixed if not key.startswith("hydra")]
        conditional, belonging_lines = belonging(searched, lines, self._has)
        self._refuse_unknown(conditional)
        forbid = tuple(
            rules(each, f"hydra.sweeper.forbid[{number}]")
            for number, each in enumerate(self.sweeper.get("forbid") or ())
        )
        custom = self.sweeper.get("custom_search_space")
        space = Space(
            parameters=ordered(conditional),
            fixed=tuple(belonging_lines),
            forbid=forbid,
            known=self._known(
                [*(rule for p in conditional for rule in p.when), *(r for c in forbid for r in c)], searched
            ),
            custom=_custom(custom) if custom else None,
            custom_name=custom,
            config=self.base_values if custom else {},
        )
        if not space:
            raise RequestError(
                "nothing to search: give a range such as 'optimizer.lr=tag(log,interval(1e-4,1e-1))', "
                "hydra.sweeper.params, or search=auto"
            )
        return space

    def composed(self, lines: Sequence[str]) -> DictConfig:
        """The whole configuration of some overrides, composed once."""
        key = tuple(lines)
        if key not in self._composed:
            self._composed[key] = self.compose(list(lines))
        return self._composed[key]

    @cached_property
    def base(self) -> DictConfig:
        """The configuration without what is searched, and without settings of what may be chosen."""
        searched, fixed = self._split
        groups = {each.name for each in searched if each.kind == "choice"}
        return self.composed([line for line, key in fixed if key.partition(".")[0] not in groups])

    @cached_property
    def base_values(self) -> dict[str, Any]:
        """The same as plain values, references to the environment left alone."""
        values = OmegaConf.to_container(self.base, resolve=False)
        assert isinstance(values, dict)
        return {str(key): value for key, value in values.items() if key != "hydra"}

    @cached_property
    def _split(self) -> tuple[list[Parameter], list[tuple[str, str]]]:
        """Everything that is searched, and the fixed overrides with their keys; the command line has the last word."""
        searched, more = parameters(self.sweeper.get("params") or {}, "hydra.sweeper.params", self.loader)
        problems: list[str] = []
        fixed = [(line, parse(line).key_or_group) for line in more]
        for line in self.lines:
            try:
                override = parse(line, self.loader)
                name = override.key_or_group
                searched = [known for known in searched if known.name != name]
                single = fixed_choice(override)
                if override.is_sweep_override() and single is None:
                    searched.append(parameter(override))
                else:  # the last one counts; what takes a key away stays
                    kept = (pair for pair in fixed if pair[1] != name or pair[0].startswith("~"))
                    fixed = [*kept, (single or line, name)]
            except RequestError as error:
                problems += error.problems
        if problems:
            raise RequestError(problems)
        if self.sweeper.get("auto"):
            from bigopt.search.defaults import default_space

            named = {p.name for p in searched} | {key for _, key in fixed}
            made = default_space(self, searched, [line for line, _ in fixed])
            searched = [*searched, *(p for p in made if p.name not in named)]
        return searched, fixed

    def _has(self, group: str, text: str, key: str) -> bool:
        if group in STEPS:
            names = [name.strip() for name in text.strip("[]").split(",")]
            return key.split(".")[1] in names
        return has_key(self._variant(group, text), key)

    def _variant(self, group: str, text: str) -> DictConfig:
        """The configuration with this choice, and with fixed overrides of groups only."""
        fixed = [line for line, key in self._split[1] if "." not in key and key != group]
        return self.composed([*fixed, f"{group}={text}"])

    def _refuse_unknown(self, searched: Sequence[Parameter]) -> None:
        """Names every parameter whose key is in none of the configurations that the space leads to."""
        problems = []
        groups = [p for p in searched if p.kind == "choice" and "." not in p.name]
        for each in searched:
            if each.key.startswith("+") or each.name in (p.name for p in groups):
                continue
            variants = [self.base, *(self._variant(g.name, text) for g in groups for text in g.texts)]
            if not any(has_key(cfg, each.name) for cfg in variants):
                problems.append(unknown(variants[-1], parse(f"{each.name}=0"), ()))
        if problems:
            raise RequestError(problems)

    def _known(self, all_rules: Sequence[Rule], searched: Sequence[Parameter]) -> dict[str, Any]:
        """Values of the keys that conditions name and that are not searched."""
        names = {rule.name for rule in all_rules} - {parameter.name for parameter in searched}
        known, problems = {}, []
        choices = self.base.hydra.runtime.choices
        for name in sorted(names):
            if name in choices:
                value = choices[name]
                known[name] = list(self.base[name]) if name in STEPS else value
            elif has_key(self.base, name):
                value = OmegaConf.select(self.base, name)
                known[name] = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
            else:
                problems.append(unknown(self.base, parse(f"{name}=0"), ()))
        if problems:
            raise RequestError([f"when or forbid: {problem}" for problem in problems])
        return known

    def _context(self) -> dict[str, Any]:
        """What the run fills into the tuner's arguments."""
        checked = self.checked
        wanted = self.sweeper.get("n_trials")
        return {
            "seed": checked.seed,
            "n_trials": self._number("n_trials", 1, whole=True) if wanted is not None else None,
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

    def _limits(self, n_trials: int | None) -> Limits:
        given = self.sweeper
        return Limits(
            n_trials=n_trials,
            timeout=self._number("timeout", 0),
            target=None if given.get("target") is None else float(given["target"]),
            patience=self._number("patience", 1, whole=True),
            worth=self._number("worth", 0),
            worth_trials=self._number("worth_trials", 2, whole=True),
            max_retries=self._number("max_retries", 0, whole=True),
            fail_fast=bool(given.get("fail_fast", False)),
            heartbeat=self._number("heartbeat", 0.01),
            grace=self._number("grace", 0.01),
        )

    def _number(self, name: str, least: float, whole: bool = False) -> Any:
        value = self.sweeper.get(name)
        if value is None and name in ("timeout", "patience", "worth"):
            return None
        good = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        if not good or value is None or value < least:
            kind = "a whole number" if whole else "a number"
            raise RequestError(f"hydra.sweeper.{name}: got {value!r}, expected {kind} of at least {least:g}")
        return value

    def _fixed(self) -> dict[str, str]:
        """What must not change when the study goes on, in words by name."""
        checked = self.checked
        said = {
            key: line.partition("=")[2] if "=" in line else line
            for line, key in self._split[1]
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
        return int(self._number("confirm", 0, whole=True))

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
        given = {key for _, key in self._split[1]}
        settings = self.checked.settings
        return skipped(self.objective, settings.budget, given, self._number("n_jobs", 0, whole=True))


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


def _custom(name: str) -> Any:
    """The user's function.

    Raises:
        RequestError: there is none of this name.
    """
    from importlib import import_module

    module, _, attribute = str(name).rpartition(".")
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise RequestError(
            f"hydra.sweeper.custom_search_space: got {name!r}, expected module.function: {error}"
        ) from error
    if not callable(found):
        raise RequestError(f"hydra.sweeper.custom_search_space: got {name!r}, which is no function")
    return found
