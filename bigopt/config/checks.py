"""Checks a composed configuration without data and without torch, and reports everything that is wrong at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig

from bigopt.config._complete import MISSING, complete, defaults_of, find, plain, takes_mapping
from bigopt.config._order import order_problems
from bigopt.config._ranges import out_of_range
from bigopt.config._references import read
from bigopt.config._suggest import listed, suggestion
from bigopt.config._targets import refused
from bigopt.config.checked import Checked, Step, read_saved
from bigopt.config.groups import NONE, PLUGINS, SCALARS, SETTINGS, SLOTS, STEPS
from bigopt.registry import Plugin, bind, discover
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.objective import parse_objective
from bigopt.vocabulary.settings import Settings, StepOptions, Trainer

T = TypeVar("T")

KNOWN = (*SCALARS, *PLUGINS, *SETTINGS)
OBJECTIVE = {"val/accuracy": "max"}
_OPTIONS = frozenset(defaults_of(StepOptions))


def check(cfg: Mapping[str, Any] | DictConfig, composed: bool = False) -> Checked:
    """The checked configuration.

    Args:
        cfg: what Hydra composed, or a mapping of the same shape; groups that are left out keep their defaults.
        composed: the configuration comes out of Hydra, which completes every step that is selected; settings of a step
            that is not are then recognised, and refused.

    Raises:
        RequestError: everything that is wrong with it, one line each.
    """
    values, references = read(cfg)
    return _Checker(values, references, composed).checked()


class _Checker:
    """Goes through a configuration once and collects what is wrong."""

    def __init__(self, values: dict[str, Any], references: dict[str, Any], composed: bool) -> None:
        self.values = values
        self.references = references
        self.composed = composed
        self.problems: list[str] = []

    def checked(self) -> Checked:
        self._keys()
        self.problems += refused(self.values)
        if self.problems:  # nothing below may look at a key that nobody knows, or build what was refused
            raise RequestError(self.problems)
        settings = {group: self._settings(group) for group in SETTINGS}
        model, dataset = self._choice("model", required=True), self._choice("dataset", required=True)
        transfer, tuner = self._choice("transfer"), self._choice("tuner")
        compression = self._steps("compression")
        recipe = [*(step for slot in reversed(SLOTS) for step in self._slot(slot)), *self._steps("recipe")]
        self.problems += order_problems(compression)
        self.problems += _one_device(settings["trainer"], settings["optimizer"])
        self.problems += _trained_at_all(settings["trainer"], model)
        objective, seed, resume = self._objective(), self._seed(), self._resume()
        control, cache = self._control(), self._cache()
        if self.problems:
            raise RequestError(list(dict.fromkeys(self.problems)))
        return Checked(
            settings=Settings(
                **settings,
                objective=objective,
                control=control,
                cache=cache,
                extra={"model": model, "dataset": dataset},
            ),
            model=model,
            dataset=dataset,
            transfer=transfer,
            compression=compression,
            recipe=recipe,
            tuner=tuner,
            seed=seed,
            resume=resume,
            resolved=self._resolved(),
            objective_given=bool(self.values.get("objective")),
        )

    def _resolved(self) -> dict[str, Any]:
        """The whole configuration as plain values, also what was left to its default."""
        whole: dict[str, Any] = {}
        for group in (*PLUGINS, *SETTINGS):
            given = self.references.get(group) or ({} if group in (*STEPS, *SETTINGS) else {"name": NONE})
            steps = (
                {name: complete(group, name, body or {}) for name, body in given.items()} if group in STEPS else None
            )
            whole[group] = steps if steps is not None else complete(group, NONE, given)
        defaults = {"seed": 0, "objective": None, "control": False, "cache": "", "resume": None}
        return plain(whole | {key: self.references.get(key, default) for key, default in defaults.items()})  # type: ignore[no-any-return]

    def _try(self, work: Callable[[], T]) -> T | None:
        try:
            return work()
        except RequestError as error:
            self.problems += error.problems
            return None

    def _keys(self) -> None:
        for key in self.values:
            if key not in KNOWN:
                self.problems.append(f"{key}: unknown key, expected one of {listed(KNOWN)}{suggestion(key, KNOWN)}")
        for group in (*PLUGINS, *SETTINGS):
            value = self.values.get(group)
            if value is not None and not isinstance(value, Mapping):
                self.problems.append(f"{group}: got {value!r}, expected a mapping of settings")

    def _settings(self, group: str) -> Any:
        given = self.values.get(group) or {}
        bound = self._try(lambda: bind(SETTINGS[group], given, group))
        if bound is None:
            return None
        self.problems += out_of_range(given, group, group)
        return self._try(lambda: SETTINGS[group](**bound))

    def _choice(self, group: str, required: bool = False) -> dict[str, Any]:
        given = dict(self.values.get(group) or {})
        name = given.pop("name", None if required else NONE)
        if name in (None, MISSING):
            self.problems.append(f"{group}: nothing chosen, expected one of {listed(discover()[PLUGINS[group]])}")
            return {}
        extra = {"weights": given.pop("weights", None)} if group == "model" else {}
        arguments = self._arguments(group, str(name), given, group)
        return {"name": str(name), **arguments, **extra}

    def _slot(self, group: str) -> list[Step]:
        given = dict(self.values.get(group) or {})
        name = str(given.pop("name", NONE))
        if name == NONE:
            for key in given:
                self.problems.append(f"{group}.{key}: {group} is none; choose one first, such as {group}=auto")
            return []
        return [Step(group, name, self._arguments("recipe", name, given, group), path=group)]

    def _steps(self, group: str) -> list[Step]:
        steps = []
        for name, given in (self.values.get(group) or {}).items():
            path = f"{group}.{name}"
            if not isinstance(given, Mapping | None):
                self.problems.append(f"{path}: got {given!r}, expected a mapping of settings")
            elif self.composed and "plugin" not in (given or {}):
                self.problems.append(f"{path}: settings of a step that is not selected; add it: {group}=[…,{name}]")
            else:
                steps.append(self._step(group, str(name), dict(given or {}), path))
        return steps

    def _step(self, group: str, name: str, given: dict[str, Any], path: str) -> Step:
        plugin = str(given.pop("plugin", None) or name)
        options = StepOptions()
        if group == "compression":
            chosen = {key: given.pop(key) for key in list(given) if key in _OPTIONS}
            bound = self._try(lambda: bind(StepOptions, chosen, path))
            self.problems += out_of_range(chosen, path) if bound is not None else []
            options = StepOptions(**bound) if bound is not None else options
        return Step(name, plugin, self._arguments(group, plugin, given, path), options, path)

    def _arguments(self, group: str, name: str, given: Mapping[str, Any], path: str) -> dict[str, Any]:
        """Arguments for a plugin: checked against its signature, without those that the run fills in."""
        plugin = find(group, name)
        if plugin is None:
            known = [found for found in discover()[PLUGINS[group]] if "@" not in found]
            self.problems.append(
                f"{path}: got {name!r}, expected a plugin: {listed(known) or 'none'}{suggestion(name, known)}"
            )
            return {}
        if plugin.problem is not None:
            self.problems.append(f"{path}: {plugin.problem}")
            return {}
        arguments = {key: value for key, value in given.items() if value != MISSING and not _unset(plugin, key, value)}
        return self._try(lambda: bind(plugin, arguments, path)) or {}

    def _objective(self) -> dict[str, str]:
        given = self.values.get("objective")
        if given is None:
            return dict(OBJECTIVE)
        if not isinstance(given, Mapping):
            self.problems.append(f"objective: got {given!r}, expected a mapping such as {{val/accuracy:max}}")
            return {}
        self._try(lambda: parse_objective(given))
        return {str(name): str(mode) for name, mode in given.items()}

    def _seed(self) -> int:
        seed = self.values.get("seed", 0)
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
            self.problems.append(f"seed: got {seed!r}, expected a whole number from 0 to {2**32 - 1}")
            return 0
        return seed

    def _control(self) -> bool:
        control = self.values.get("control", False)
        if not isinstance(control, bool):
            self.problems.append(f"control: got {control!r}, expected true or false")
        return control is True

    def _cache(self) -> str:
        cache = self.values.get("cache", "")
        if cache is False:  # YAML 1.1 reads a bare `off` so
            return "off"
        if cache is None or not isinstance(cache, str):
            self.problems.append(f"cache: got {cache!r}, expected a folder, or off")
            return ""
        if cache not in ("", "off") and Path(cache).exists() and not Path(cache).is_dir():
            self.problems.append(f"cache: got {cache!r}, expected a folder; it is a file")
        return cache

    def _resume(self) -> Path | None:
        resume = self.values.get("resume")
        if resume in (None, ""):
            return None
        self._try(lambda: read_saved(str(resume)))
        return Path(str(resume))


def _trained_at_all(trainer: Trainer | None, model: Mapping[str, Any] | None) -> list[str]:
    """Only a model whose weights are given may go without an epoch."""
    if trainer is None or trainer.max_epochs != 0 or model is None or model.get("weights"):
        return []
    return ["trainer.max_epochs: got 0, expected at least 1; 0 is for a model that is trained already (model.weights)"]


def _one_device(trainer: Any, optimizer: Any) -> list[str]:
    """What is found by trying is tried by one process."""
    if trainer is None or optimizer is None or trainer.devices == 1:
        return []
    asked = {"trainer.batch_size": trainer.batch_size, "optimizer.lr": optimizer.lr}
    return [
        f"{key}: got auto with trainer.devices={trainer.devices}, expected a number, or one device"
        for key, value in asked.items()
        if value == "auto"
    ]


def _unset(plugin: Plugin, key: str, value: Any) -> bool:
    """Whether a value is the empty mapping that stands for null, so that its keys can be given one by one."""
    argument = next((known for known in plugin.arguments or () if known.name == key), None)
    return value == {} and argument is not None and takes_mapping(argument) and argument.default is None
