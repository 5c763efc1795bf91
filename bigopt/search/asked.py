"""What a command line asks a search to look through: its space, with everything that is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from omegaconf import DictConfig, OmegaConf

from bigopt.config._messages import has_key, unknown
from bigopt.config.groups import STEPS
from bigopt.search.conditions import Rule, rules
from bigopt.search.parameter import Parameter
from bigopt.search.space import Space, belonging, ordered
from bigopt.search.syntax import fixed_choice, parameter, parameters, parse
from bigopt.vocabulary.errors import RequestError


@dataclass(kw_only=True)
class Asked:
    """The overrides of a sweep, told apart into what is searched and what is fixed.

    Attributes:
        lines: the command line's overrides of the job.
        sweeper: the settings of ``hydra.sweeper``, references to the environment resolved.
        compose: the whole configuration of some overrides.
        loader: Hydra's config loader, for ``glob(…)``.
    """

    lines: Sequence[str]
    sweeper: Mapping[str, Any]
    compose: Callable[[list[str]], DictConfig]
    loader: Any = None
    _composed: dict[tuple[str, ...], DictConfig] = field(default_factory=dict)

    @cached_property
    def space(self) -> Space:
        """What is searched.

        Raises:
            RequestError: everything that is wrong with it.
        """
        searched, fixed = self.split
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
        searched, fixed = self.split
        groups = {each.name for each in searched if each.kind == "choice"}
        return self.composed([line for line, key in fixed if key.partition(".")[0] not in groups])

    @cached_property
    def base_values(self) -> dict[str, Any]:
        """The same as plain values, references to the environment left alone."""
        values = OmegaConf.to_container(self.base, resolve=False)
        assert isinstance(values, dict)
        return {str(key): value for key, value in values.items() if key != "hydra"}

    @cached_property
    def split(self) -> tuple[list[Parameter], list[tuple[str, str]]]:
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
        fixed = [line for line, key in self.split[1] if "." not in key and key != group]
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
