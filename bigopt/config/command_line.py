"""Checks the overrides of a command line all at once, before Hydra stops at the first wrong one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bigopt.config._suggest import listed, nearest, suggestion
from bigopt.config.groups import STEPS
from bigopt.vocabulary.errors import RequestError


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
    lines: Sequence[str]
    problems: list[str] = field(default_factory=list)
    _options: dict[str, list[str]] = field(default_factory=dict)

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
        self._check_keys(good, values)
        if self.problems:
            raise RequestError(self.problems)
        self.lines = self._replacing_objective(good)
        cfg = self.compose(list(self.lines), RunMode.MULTIRUN)
        several = [override for override in overrides if override.is_sweep_override()]
        if several and not sweep and cfg.hydra.mode != RunMode.MULTIRUN:
            raise RequestError([_several(override) for override in several])
        return cfg

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
        for line in self.lines:
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
        for value in _alternatives(override):
            names = value if isinstance(value, list) else [value]
            for name in names:
                if name is not None and (not isinstance(name, str) or not self._exists(group, name)):
                    known = self._choices(group)
                    self.problems.append(
                        f"{group}: got {_show(name)}, expected one of {listed(known)}{suggestion(str(name), known)}"
                    )
            twice = sorted({str(name) for name in names if names.count(name) > 1})
            if twice:
                self.problems.append(
                    f"{group}: got {', '.join(twice)} twice in {_show(value)}; a second one needs a name of its own: "
                    f"a file {group}/<name>.yaml with plugin: {twice[0]}"
                )
        return len(self.problems) == before

    def _replacing_objective(self, choices: Sequence[Override]) -> list[str]:
        """The lines, with an objective that takes the place of an experiment's; Hydra would merge the two."""
        given = [line for line in self.lines if line.startswith("objective={")]
        if not given or not self.compose(
            [str(choice.input_line) for choice in choices if not choice.is_sweep_override()]
        ).get("objective"):
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
            if not wrong and first is not None:
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
            self.problems.append(_unknown(first, override, self.loader))


def has_key(cfg: DictConfig, key: str) -> bool:
    """Whether an override of this key changes something that is there, or that may be added."""
    node: Any = cfg
    for part in _split(key):
        if isinstance(node, DictConfig):
            if node._is_none() or part not in node:
                return isinstance(node, DictConfig) and not OmegaConf.is_struct(node) and not node._is_none()
            node = node._get_node(part)
            if not OmegaConf.is_config(node):
                node = node._value()
        elif isinstance(node, ListConfig) and part.isdigit() and int(part) < len(node):
            node = node._get_node(int(part))
        else:
            return False
    return True


def one_line(error: BaseException) -> str:
    """What a Hydra or OmegaConf error says, without the search path and the tips about its own syntax."""
    text = str(error) or (str(error.__cause__) if error.__cause__ else type(error).__name__)
    if error.__cause__ is not None and isinstance(error.__cause__, OmegaConfBaseException):
        text = f"{error}\n{error.__cause__}"
    lines = [line.strip() for line in text.splitlines()]
    kept: list[str] = []
    for line in lines:
        if line.startswith(("Config search path", "Search path", "full_key:", "object_type=", "Set the environment")):
            break
        if line and line not in kept:
            kept.append(line)
    return " ".join(kept)


def _split(key: str) -> list[str]:
    return re.findall(r"[^.\[\]]+", key)


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


def _several(override: Override) -> str:
    key, value = override.get_key_element(), str(override.input_line).partition("=")[2]
    return (
        f"{key}: got several values ({value}); add -m to sweep over them, write [{value}] for a list, "
        "or quote the value to keep it as text"
    )


def _unknown(cfg: DictConfig, override: Override, loader: ConfigLoader) -> str:
    """Why there is no such key, with the nearest one that there is."""
    key = override.key_or_group
    parts = _split(key)
    if parts[0] in STEPS and len(parts) > 1 and parts[1] not in (cfg.get(parts[0]) or {}):
        chosen = list(cfg.get(parts[0]) or {})
        known = loader.get_group_options(parts[0], ObjectType.CONFIG)
        near = "" if parts[1] in known else suggestion(parts[1], known)
        return (
            f"{key}: {parts[1]} is not selected: {parts[0]}=[{','.join(chosen)}]; "
            f"add it to the list or leave its settings out{near}"
        )
    node: Any = cfg
    for index, part in enumerate(parts):
        keys = [str(name) for name in node if name != "hydra"] if isinstance(node, DictConfig) and node else []
        if part in keys or (index == 0 and part == "hydra"):
            node = node._get_node(part)
            continue
        before = ".".join(parts[:index])
        near = nearest(part, keys)
        mean = ".".join([*parts[:index], near, *parts[index + 1 :]]) if near else None
        tip = f"; did you mean {mean}?" if mean else ""
        if not keys:
            return f"{key}: unknown key, {before or 'the configuration'} holds a value and no keys{tip}"
        return f"{key}: unknown key {part!r}{f' in {before}' if before else ''}, expected one of {listed(keys)}{tip}"
    return f"{key}: cannot be set"


def _show(value: Any) -> str:
    return "null" if value is None else repr(value)
