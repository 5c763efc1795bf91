"""Composing the trials of a search: those that differ in values alone are composed once."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from omegaconf import DictConfig, OmegaConf

MOST = 32
"""Compositions that are kept; a search over pipelines may have many."""


class RememberingLoader:
    """Hydra's loader, which composes a trial from the one before where only scalar values differ.

    Which files are read and in what order follows from the choices of groups alone, and composing them costs more than
    a small trial's training. So the first trial with some choices is composed by Hydra; of the next ones with the same
    choices and keys, a copy gets the new values, in their order, as Hydra would set them.

    Args:
        loader: Hydra's own; everything else is passed on to it.
    """

    def __init__(self, loader: ConfigLoader) -> None:
        self._loader = loader
        self._known: dict[tuple[str, ...], DictConfig] = {}
        self._groups: dict[str, bool] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """The configuration of one job."""
        before = OmegaConf.to_container(master_config.hydra.overrides.hydra)
        assert isinstance(before, list)
        parsed = OverridesParser.create().parse_overrides([*map(str, before), *sweep_overrides])
        key = tuple(self._name(override) for override in parsed)
        if key not in self._known:
            config = self._loader.load_sweep_config(master_config, sweep_overrides)
            if len(self._known) < MOST:
                self._known[key] = copy.deepcopy(config)
            return config
        config = copy.deepcopy(self._known[key])
        self._set(config, [override for override in parsed if self._is_value(override)])
        _tell(config, parsed)
        OmegaConf.copy_cache(from_config=master_config, to_config=config)
        return config

    def _name(self, override: Override) -> str:
        """The whole line, or only its key where a value can be set afterwards."""
        if self._is_value(override):
            return f"{override.type}{override.key_or_group}="
        return str(override.input_line)

    def _is_value(self, override: Override) -> bool:
        """Whether a line sets one scalar, and chooses and deletes nothing."""
        if override.is_delete() or override.package is not None or override.is_sweep_override():
            return False
        if isinstance(override.value(), (dict, list)):
            return False
        name = override.key_or_group
        if name not in self._groups:
            self._groups[name] = bool(self._loader.get_group_options(name))
        return not self._groups[name]

    @staticmethod
    def _set(config: DictConfig, overrides: Sequence[Override]) -> None:
        from hydra._internal.config_loader_impl import ConfigLoaderImpl

        for override in overrides:
            if override.is_add():  # the copy has it already
                override.type = OverrideType.FORCE_ADD
        ConfigLoaderImpl._apply_overrides_to_config(list(overrides), config)


def _tell(config: DictConfig, overrides: Sequence[Override]) -> None:
    """What Hydra writes down about the command line."""
    from hydra._internal.config_loader_impl import get_overrides_dirname

    hydra = config.hydra
    hydra.overrides.hydra = [one.input_line for one in overrides if one.is_hydra_override()]
    task = [one for one in overrides if not one.is_hydra_override()]
    hydra.overrides.task = [one.input_line for one in task]
    how = hydra.job.config.override_dirname
    hydra.job.override_dirname = get_overrides_dirname(
        overrides=task, kv_sep=how.kv_sep, item_sep=how.item_sep, exclude_keys=how.exclude_keys
    )
