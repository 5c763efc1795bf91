"""Checks the overrides of a command line all at once, before Hydra stops at the first wrong one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bigopt.config._choices import empty_choice, simple_choices
from bigopt.config._messages import has_key, one_line, several, shown, unknown
from bigopt.config._suggest import listed, suggestion
from bigopt.config.groups import NONE, PLUGINS, SETTINGS, STEPS
from bigopt.vocabulary.errors import RequestError

ALWAYS = (*PLUGINS, *SETTINGS, "experiment", "search", "debug")
"""Groups in the root configuration's defaults list."""


@dataclass
class CommandLine:
    """Overrides beside the configuration that they change.

    Attributes:
        loader: composes configurations.
        config_name: the primary one.
        lines: overrides as given.
    """

    loader: ConfigLoader
    config_name: str | None
    lines: list[str]
    problems: list[str] = field(default_factory=list)
    _options: dict[str, list[str]] = field(default_factory=dict)
    _refused: set[str | None] = field(default_factory=set)

    def check(self, sweep: bool) -> DictConfig:
        """The composed configuration, if nothing is wrong with any override.

        Args:
            sweep: whether ``--multirun`` was given.

        Raises:
            RequestError: all that is wrong.
        """
        overrides = list(self._parse())
        choices = [override for override in overrides if self._is_choice(override)]
        values = [override for override in overrides if override not in choices]
        good = [override for override in choices if self._known_choice(override)]
        cfg = self._composed(good, values)
        swept = [override for override in overrides if override.is_sweep_override()]
        if swept and not sweep and cfg.hydra.mode != RunMode.MULTIRUN and not searches(cfg):
            raise RequestError([several(override) for override in swept])
        return cfg

    def _composed(self, choices: Sequence[Override], values: Sequence[Override]) -> DictConfig:
        """The configuration of all overrides; where there is none, everything that is wrong with them."""
        cfg, reason = None, RequestError("the configuration cannot be composed")
        if not self.problems:
            try:
                cfg = self.compose(self.lines, RunMode.MULTIRUN)
            except RequestError as error:
                reason = error
        # Hydra has looked at the keys of what it composed, and not at those that a sweep goes over
        self._check_keys(choices, values if cfg is None else [value for value in values if value.is_sweep_override()])
        if self.problems:
            self._check_the_rest([*choices, *values])
            raise RequestError(self.problems)
        if cfg is None:
            cfg = self._with_choices(choices, values)
        if cfg is None:
            raise reason
        before, self.lines = self.lines, self._replacing_objective()
        return cfg if before == self.lines else self.compose(self.lines, RunMode.MULTIRUN)

    def _with_choices(self, choices: Sequence[Override], values: Sequence[Override]) -> DictConfig | None:
        """The configuration of a sweep over choices where some values are settings of only some of these: Hydra is
        given ``key=choice(value)``, which it leaves to the sweeper.
        """
        if not any(override.is_sweep_override() for override in choices):
            return None
        base = self.compose([str(o.input_line) for o in choices], RunMode.MULTIRUN)
        for override in values:
            apart = override.is_sweep_override() or override.is_add() or override.is_force_add()
            if not apart and not has_key(base, override.key_or_group):
                line = str(override.input_line)
                key, _, text = line.partition("=")
                self.lines[self.lines.index(line)] = f"{key}=choice({text})"
        try:
            return self.compose(self.lines, RunMode.MULTIRUN)
        except RequestError:
            return None

    def _check_the_rest(self, overrides: Sequence[Override]) -> None:
        """Notes what is wrong with the values of the overrides that can be taken, beside those that cannot."""
        from bigopt.config._job import preview
        from bigopt.config.checks import check

        taken = [o for o in overrides if o.input_line not in self._refused and not o.is_sweep_override()]
        try:
            check(preview(self.compose([str(override.input_line) for override in taken])), composed=True)
        except RequestError as error:
            self.problems += [problem for problem in error.problems if problem not in self.problems]

    def compose(self, lines: list[str], mode: RunMode = RunMode.RUN) -> DictConfig:
        """One configuration.

        Raises:
            RequestError: Hydra refuses it.
        """
        try:
            return self.loader.load_configuration(self.config_name, lines, mode, validate_sweep_overrides=False)
        except (HydraException, OmegaConfBaseException, ValueError, OSError) as error:
            raise RequestError(one_line(error)) from error

    def _parse(self) -> Iterator[Override]:
        parser = OverridesParser.create(config_loader=self.loader)
        for number, line in enumerate(self.lines):
            simple = simple_choices(line)
            if simple is not None:
                try:
                    parser.parse_override(line)
                except HydraException:
                    self.lines[number] = line = simple
            empty = empty_choice(line)
            if empty is not None:
                self.problems.append(empty)
                continue
            try:
                yield parser.parse_override(line)
            except HydraException as error:  # the parser raises its bare base where it fails early
                reason = str(error).splitlines()[0].partition(" expecting {")[0]
                self.problems.append(f"{line!r}: not an override: {reason}; write name=value, +name=value or ~name")

    def _choices(self, group: str) -> list[str]:
        if group not in self._options:
            self._options[group] = list(self.loader.get_group_options(group, ObjectType.CONFIG))
        return self._options[group]

    def _is_choice(self, override: Override) -> bool:
        return not isinstance(override.value(), dict) and bool(self._choices(override.key_or_group))

    def _known_choice(self, override: Override) -> bool:
        """Whether every choice that an override makes exists; a problem is noted where one does not."""
        group = override.key_or_group
        if override.is_delete() or not (override.is_discrete_sweep() or not override.is_sweep_override()):
            return True
        before = len(self.problems)
        if override.is_add() and override.package is None and group in ALWAYS:
            self.problems.append(f"+{group}: {group} is chosen already; leave the + out to choose another")
        for value in _alternatives(override):
            names = value if isinstance(value, list) else [value]
            for name in names:
                if name is not None and (not isinstance(name, str) or not self._exists(group, name)):
                    known = self._choices(group)
                    self.problems.append(
                        f"{group}: got {shown(name)}, expected one of {listed(known)}{suggestion(str(name), known)}"
                    )
            twice = sorted({str(name) for name in names if names.count(name) > 1})
            if twice:
                self.problems.append(
                    f"{group}: got {', '.join(twice)} twice in {shown(value)}; a second one needs a name of its own: "
                    f"a file {group}/<name>.yaml with plugin: {twice[0]}"
                )
        return len(self.problems) == before

    def _replacing_objective(self) -> list[str]:
        """The lines, with an objective that takes the place of an experiment's; Hydra would merge the two."""
        given = [line for line in self.lines if line.startswith("objective={")]
        if (
            not given
            or not self.compose([line for line in self.lines if line not in given], RunMode.MULTIRUN).objective
        ):
            return list(self.lines)
        return [new for line in self.lines for new in (["~objective", f"+{line}"] if line in given else [line])]

    def _exists(self, group: str, name: str) -> bool:
        inner, _, last = f"{group}/{name}".rpartition("/")
        return last in self._choices(inner)

    def _check_keys(self, choices: Sequence[Override], values: Sequence[Override]) -> None:
        """Notes every value override whose key is in none of the configurations that the choices lead to."""
        wrong = {o.input_line: o for o in values if not (o.is_add() or o.is_force_add() or o.package)}
        first: DictConfig | None = None
        for lines in _variants(choices):
            if not wrong:
                break
            try:
                cfg = self.compose(lines)
            except RequestError as error:
                self.problems += [problem for problem in error.problems if problem not in self.problems]
                return
            first = first if first is not None else cfg
            wrong = {line: override for line, override in wrong.items() if not has_key(cfg, override.key_or_group)}
        for override in wrong.values():
            assert first is not None
            self._refused.add(override.input_line)
            group = override.key_or_group.partition(".")[0]
            self.problems.append(unknown(first, override, self._choices(group) if group in STEPS else ()))


def searches(cfg: DictConfig) -> bool:
    """Whether a configuration chooses a tuner, which turns a run into a sweep."""
    return OmegaConf.select(cfg, "tuner.name") not in (None, NONE)


def _alternatives(override: Override) -> list[Any]:
    """The values that an override gives its key, one unless it is swept over."""
    if not override.is_sweep_override():
        return [override.value()]
    return [Override._convert_value(value) for value in override.sweep_iterator()]


def _variants(choices: Sequence[Override]) -> Iterator[list[str]]:
    """Overrides that make every choice at least once: the first of each, then each other one in turn."""
    lines = [_lines(override) for override in choices]
    first = [found[0] for found in lines]
    yield first
    for index, found in enumerate(lines):
        for line in found[1:]:
            yield [*first[:index], line, *first[index + 1 :]]


def _lines(override: Override) -> list[str]:
    if not override.is_discrete_sweep():
        return [str(override.input_line)]
    return [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
