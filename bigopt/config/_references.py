"""Secrets stay references: ``${oc.env:NAME}`` is read at the point of use and written nowhere."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bigopt.store.redaction import register_secret, register_secrets, secret_key
from bigopt.vocabulary.errors import RequestError

_VARIABLE = re.compile(r"\$\{oc\.env:\s*([^,}\s]+)")
_PASSWORD = re.compile(r"(?P<before>[A-Za-z][A-Za-z0-9+.\-]*://[^/\s:@]*:)(?P<secret>\S+)(?P<after>@[^@\s]*)$")
_QUERY = re.compile(r"(?P<before>[?&](?P<name>[\w.\-]+)=)(?P<secret>[^&\s#]+)")


def hide_secrets(value: Any, path: str) -> Any:
    """The value with every secret in it moved to an environment variable and referred to from here.

    Secrets are texts under keys that look secret, passwords inside URIs, and secret parameters of their queries.

    Args:
        value: mapping, list or scalar as configuration files and overrides hold them.
        path: where it stands, for the variable's name.
    """
    if isinstance(value, Mapping):
        return {key: hide_secrets(item, f"{path}.{key}") for key, item in value.items()}
    if isinstance(value, list):
        return [hide_secrets(item, f"{path}.{index}") for index, item in enumerate(value)]
    if not isinstance(value, str) or not value or value == "???":
        return value
    if secret_key(path.rpartition(".")[2]):
        return _moved(value, path)
    value = _PASSWORD.sub(lambda m: m["before"] + _moved(m["secret"], path) + m["after"], value)
    return _QUERY.sub(
        lambda m: m["before"] + (_moved(m["secret"], f"{path}.{m['name']}") if secret_key(m["name"]) else m["secret"]),
        value,
    )


def _moved(secret: str, path: str) -> str:
    """A reference to the secret; what is one already stays."""
    return secret if "${" in secret else _move(secret, path)


def hide_in_overrides(lines: Sequence[str]) -> list[str]:
    """The command line's overrides with secrets moved away, so that no file, log or folder can show them."""
    return [_hide_in_override(line) for line in lines]


def register_references(value: Any, key: str = "") -> None:
    """Makes the values of all environment variables that a configuration refers to masked from now on.

    Numbers and existing paths are left out unless their key looks secret: masking them would garble every report.
    """
    if isinstance(value, Mapping):
        for name, item in value.items():
            register_references(item, str(name))
    elif isinstance(value, list):
        for item in value:
            register_references(item, key)
    elif isinstance(value, str):
        for name in _VARIABLE.findall(value):
            found = os.environ.get(name)
            if found and (secret_key(key) or secret_key(name) or not _harmless(found)):
                register_secret(found)
                register_secrets(found)  # the password alone too, where the value is a URI


def read(cfg: Mapping[str, Any] | DictConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """Values of a configuration, and the same with what comes from the environment left as references.

    Raises:
        RequestError: an interpolation points nowhere, or an environment variable is not set.
    """
    node = cfg if isinstance(cfg, DictConfig) else OmegaConf.create(dict(cfg))
    raw = OmegaConf.to_container(node, resolve=False)
    register_references(raw)
    problems: list[str] = []
    values = _resolve(node, "", problems)
    if problems:
        raise RequestError(problems)
    return values, _keep(raw, values, _environment(raw))


def _resolve(node: Any, path: str, problems: list[str]) -> Any:
    if not OmegaConf.is_config(node):
        return node
    if node._is_none():
        return None
    keys: list[Any] = list(node) if OmegaConf.is_dict(node) else list(range(len(node)))
    found = {}
    for key in keys:
        inner = f"{path}.{key}" if path else str(key)
        try:
            found[key] = "???" if OmegaConf.is_missing(node, key) else _resolve(node[key], inner, problems)
        except OmegaConfBaseException as error:
            problems.append(f"{inner}: {str(error).splitlines()[0]}")
    return {str(key): item for key, item in found.items()} if OmegaConf.is_dict(node) else list(found.values())


def _keep(raw: Any, value: Any, secrets: frozenset[str]) -> Any:
    """The raw reference where a value was made of the environment, the value everywhere else."""
    if isinstance(raw, Mapping) and isinstance(value, Mapping):
        return {str(key): _keep(item, value[str(key)], secrets) for key, item in raw.items()}
    if isinstance(raw, list) and isinstance(value, list):
        return [_keep(one, other, secrets) for one, other in zip(raw, value, strict=True)]
    if isinstance(raw, str) and "${" in raw and (_VARIABLE.search(raw) or any(s in str(value) for s in secrets)):
        return raw
    return value


def _environment(raw: Any) -> frozenset[str]:
    """Values of the environment variables that are referred to anywhere."""
    names = _VARIABLE.findall(str(raw))
    return frozenset(os.environ[name] for name in names if os.environ.get(name))


def _move(secret: str, path: str) -> str:
    name = "BIGOPT_SECRET_" + re.sub(r"\W+", "_", path.strip("+~")).upper()
    os.environ[name] = secret
    register_secret(secret)
    return f"${{oc.env:{name}}}"


def _hide_in_override(line: str) -> str:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        override = OverridesParser.create().parse_override(line)
    except HydraException:
        return line  # it is refused later, with its reason
    if override.is_sweep_override() or override.is_delete():
        return line
    value = override.value()
    hidden = hide_secrets(value, override.key_or_group)
    return line if hidden == value else f"{override.get_key_element()}={_render(hidden)}"


def _render(value: Any) -> str:
    """A value in the grammar of Hydra's overrides."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_render(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_render(item) for item in value) + "]"
    if isinstance(value, str):
        return "'" + re.sub(r"(\\*)'", r"\1\1\\'", value) + "'"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _harmless(value: str) -> bool:
    if value.lower() in ("true", "false", "null", "none", "on", "off", "yes", "no", "auto"):
        return True
    try:
        float(value)
    except ValueError:
        return Path(value).exists()
    return True
