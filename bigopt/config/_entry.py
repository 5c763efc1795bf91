"""One configuration file, completed from the schema of what it configures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from bigopt.config._complete import complete, find, takes_mapping
from bigopt.config.groups import GLOBAL, NONE, PLUGINS, SETTINGS, SLOTS, STEPS
from bigopt.vocabulary.errors import RequestError


@dataclass(frozen=True)
class Entry:
    """One configuration as Hydra wants it.

    Attributes:
        content: the completed configuration.
        package: where it belongs; None for its group's own place.
    """

    content: DictConfig
    package: str | None


def make_entry(path: str, content: dict[str, Any], package: str | None) -> Entry:
    """Completes what a file says, or makes up the entry of a plugin without one.

    Args:
        path: config path, group and name.
        content: what the file says, its defaults list included.
        package: its header; None for none.

    Raises:
        RequestError: the file chooses a step twice.
    """
    group, _, name = path.rpartition("/")
    defaults = content.pop("defaults", None)
    _refuse_repeats(path, defaults)
    if package is None and group in GLOBAL:
        package = "_global_"
    if group in PLUGINS or group in SETTINGS:
        content = _complete(group, name, content, package, built_on=_others(defaults))
    config = OmegaConf.create({"defaults": defaults, **content} if defaults is not None else content)
    _open(config, group, package)
    return Entry(config, package)


def _refuse_repeats(path: str, defaults: Any) -> None:
    """Hydra would make one step of two equal ones, silently."""
    for item in defaults if isinstance(defaults, list) else ():
        for group, names in item.items() if isinstance(item, Mapping) else ():
            twice = {name for name in names if names.count(name) > 1} if isinstance(names, list) else set()
            if twice:
                raise RequestError(f"{path}: {group}: got {', '.join(sorted(map(str, twice)))} twice in {names}")


def _others(defaults: Any) -> bool:
    """Whether a defaults list builds on other files, which then bring the defaults with them."""
    return any(
        item != "_self_" and not (isinstance(item, dict) and str(next(iter(item))).startswith("override "))
        for item in defaults or ()
    )


def _complete(group: str, name: str, content: dict[str, Any], package: str | None, built_on: bool) -> dict[str, Any]:
    if package == "_global_":
        inner = content.get(group)
        if not isinstance(inner, Mapping):
            return content
        return {**content, group: _complete(group, name, dict(inner), None, built_on)}
    if group not in STEPS:
        return content if built_on else complete(group, name, content)
    if package not in (
        None,
        group,
    ):  # `@package compression.step`: the file holds one step's settings and nothing around them
        step = str(package).rpartition(".")[2]
        return content if built_on else complete(group, step, content)
    steps = content if _wrapped(group, name, content) else {name: content}
    return {step: (body or {}) if built_on else complete(group, step, body or {}) for step, body in steps.items()}


def _wrapped(group: str, name: str, content: Mapping[str, Any]) -> bool:
    """Whether a step's file puts its settings under the step's name, as Hydra's own tree would need it."""
    return bool(content) and all(
        (body is None and step == name)
        or (isinstance(body, Mapping) and (step == name or "plugin" in body or find(group, step) is not None))
        for step, body in content.items()
    )


def _open(config: DictConfig, group: str, package: str | None) -> None:
    """Lets the user add keys where a plugin takes a mapping of its own, and to the objective."""
    objective = config._get_node("objective")
    if (package == "_global_" or not group) and OmegaConf.is_dict(objective):
        objective._set_flag("struct", False)  # type: ignore[union-attr]
    for name, body in _bodies(config, group, package):
        plugin = None if name is None or (name == NONE and group in SLOTS) else find(group, name)
        if plugin is None or not OmegaConf.is_dict(body):
            continue
        if plugin.variadic:
            body._set_flag("struct", False)
        for argument in plugin.arguments or ():
            node = body._get_node(argument.name)
            if takes_mapping(argument) and OmegaConf.is_dict(node):
                node._set_flag("struct", False)


def _bodies(config: DictConfig, group: str, package: str | None) -> Iterator[tuple[Any, Any]]:
    """The plugin's name and its settings, for every plugin that an entry speaks about."""
    if group not in PLUGINS:
        return
    if package == "_global_":
        config = config._get_node(group)  # type: ignore[assignment]
        if not OmegaConf.is_dict(config):
            return
    if group not in STEPS:
        yield config.get("name"), config
    elif package not in (None, "_global_", group):
        yield config.get("plugin") or str(package).rpartition(".")[2], config
    else:
        for step in config:
            body = config._get_node(step)
            if step != "defaults" and OmegaConf.is_dict(body):
                yield body.get("plugin") or step, body  # type: ignore[union-attr]
