"""What is said about overrides that cannot be taken."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bigopt.config._suggest import listed, nearest, suggestion
from bigopt.config.groups import STEPS


def has_key(cfg: DictConfig, key: str) -> bool:
    """Whether an override of this key changes something that is there, or adds where that is allowed."""
    node: Any = cfg
    for part in split_key(key):
        if isinstance(node, DictConfig):
            if node._is_none():
                return False
            if part not in list(node):  # `in` alone overlooks keys whose value is still missing
                return not OmegaConf.is_struct(node)
            node = node._get_node(part)
        elif isinstance(node, ListConfig) and part.isdigit() and int(part) < len(node):
            node = node._get_node(int(part))
        else:
            return False
    return True


LAUNCHERS = {"joblib": "launchers", "submitit": "launchers", "ray": "ray"}
"""Extra that a launcher comes with, by how its name starts."""


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
    missing = [extra for name, extra in LAUNCHERS.items() if f"'hydra/launcher/{name}" in text]
    return " ".join(kept + [f"(pip install bigopt[{extra}])" for extra in missing])


def several(override: Override) -> str:
    """Why an override with several values cannot be taken in a single run."""
    key, value = override.get_key_element(), str(override.input_line).partition("=")[2]
    return (
        f"{key}: got several values ({value}); add -m to sweep over them, write [{value}] for a list, "
        "or quote the value to keep it as text"
    )


def unknown(cfg: DictConfig, override: Override, steps: Sequence[str]) -> str:
    """Why there is no such key, with the nearest one that there is.

    Args:
        cfg: what the override was to change.
        override: the override.
        steps: what could be in the list, for a key of a step.
    """
    key = override.key_or_group
    parts = split_key(key)
    if parts[0] in STEPS and len(parts) > 1 and parts[1] not in (cfg.get(parts[0]) or {}):
        chosen = ",".join(cfg.get(parts[0]) or {})
        tip = "" if parts[1] in steps else suggestion(parts[1], steps)
        return (
            f"{key}: {parts[1]} is not selected: {parts[0]}=[{chosen}]; "
            f"add it to the list or leave its settings out{tip}"
        )
    node: Any = cfg
    for index, part in enumerate(parts):
        keys = [str(name) for name in node if name != "hydra"] if isinstance(node, DictConfig) and node else []
        if part in keys or (index == 0 and part == "hydra"):
            node = node._get_node(part)
            continue
        before = ".".join(parts[:index])
        near = nearest(part, keys)
        tip = f"; did you mean {'.'.join([*parts[:index], near, *parts[index + 1 :]])}?" if near is not None else ""
        if not keys:
            return f"{key}: unknown key, {before or 'the configuration'} holds a value and no keys"
        return f"{key}: unknown key {part!r}{f' in {before}' if before else ''}, expected one of {listed(keys)}{tip}"
    return f"{key}: cannot be set"


def split_key(key: str) -> list[str]:
    """The names in a dotted key."""
    return re.findall(r"[^.\[\]]+", key)


def shown(value: Any) -> str:
    """A value as the configuration writes it."""
    return "null" if value is None else repr(value)
