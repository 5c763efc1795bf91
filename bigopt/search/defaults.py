"""The default spaces that plugins ship, read from their source: ``search=auto`` searches those of what is chosen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from bigopt.config._complete import find
from bigopt.config.groups import NONE, PLUGINS, STEPS
from bigopt.search.parameter import Parameter
from bigopt.search.syntax import parameters

if TYPE_CHECKING:
    from bigopt.search.asked import Asked

FACT = "space"
"""Class attribute of a plugin: expressions by argument name. A function's is ``SPACE`` in its module."""


def default_space(request: Asked, searched: Sequence[Parameter], fixed: Sequence[str]) -> list[Parameter]:
    """Parameters of every plugin that the configuration chooses, or may choose where a group is searched.

    Raises:
        RequestError: a plugin's space is wrong.
    """
    groups = [each for each in searched if each.kind == "choice" and each.name in PLUGINS]
    variants = [request.compose(list(fixed))]
    for group in groups:
        rest = [line for line in fixed if line.partition("=")[0] != group.name]
        variants += [request.compose([*rest, f"{group.name}={text}"]) for text in group.texts]
    expressions: dict[str, Any] = {}
    for cfg in variants:
        for path, space in spaces(cfg):
            expressions |= {f"{path}.{name}": expression for name, expression in space.items()}
    found, _ = parameters(expressions, "space")
    return found


def spaces(cfg: DictConfig) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Path and default space of every plugin that a configuration chooses."""
    for group in PLUGINS:
        given = cfg.get(group)
        if not OmegaConf.is_dict(given) or group == "tuner":
            continue
        if group in STEPS:
            for step, body in given.items():
                yield from _space(group, body.get("plugin") or step, f"{group}.{step}")
        elif given.get("name") not in (None, NONE):
            yield from _space(group, given.name, group)


def _space(group: str, name: Any, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    plugin = find(group, name)
    space = plugin.facts.get(FACT) if plugin is not None else None
    if isinstance(space, Mapping) and space:
        yield path, space
