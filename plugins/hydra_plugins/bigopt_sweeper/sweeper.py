"""Hydra's sweeper for bigopt: a search where a tuner is chosen, Hydra's own sweep over lists of values elsewhere."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write


class BigoptSweeper(Sweeper):
    """Searches with bigopt's tuners; see ``conf/hydra/sweeper/bigopt.yaml`` for the settings.

    Args:
        settings: of ``hydra.sweeper``; read from the configuration, where references to the environment stay as they
            are until they are needed.
    """

    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        self.config: DictConfig | None = None
        self.launcher: Launcher | None = None
        self.hydra_context: HydraContext | None = None
        self.task_function: TaskFunction | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keeps what Hydra gives, and makes the launcher."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Runs the search, or Hydra's own sweep where there is no tuner.

        Returns:
            Outcomes or job returns, in lists of any depth.

        Raises:
            RequestError: what was asked for is wrong.
        """
        assert self.config is not None
        if self.config.tuner.name == "none":
            return self._plain(arguments)
        from hydra_plugins.bigopt_sweeper._search import search

        return search(self, arguments)

    def quiet_launcher(self) -> Launcher:
        """The launcher, without Hydra's own two lines for every job."""
        assert self.config is not None and self.launcher is not None
        if OmegaConf.select(self.config, "hydra.hydra_logging.root") is not None:
            with read_write(self.config), open_dict(self.config):
                self.config.hydra.hydra_logging.root.level = "WARNING"
        logging.getLogger("hydra_plugins").setLevel(logging.WARNING)  # for launchers that leave logging as it is
        return self.launcher

    def _plain(self, arguments: list[str]) -> Any:
        """Hydra's own sweep over lists of values."""
        from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

        from bigopt.search.syntax import parse
        from bigopt.vocabulary.errors import RequestError

        assert self.config is not None and self.hydra_context is not None and self.task_function is not None
        given = self.config.hydra.sweeper.get("params")
        params: Any = OmegaConf.to_container(given) if given else {}
        for line in [*(f"{key}={value}" for key, value in params.items()), *arguments]:
            override = parse(line, self.hydra_context.config_loader)
            if override.is_sweep_override() and not override.is_discrete_sweep():
                raise RequestError(
                    f"{override.key_or_group}: got {line.partition('=')[2]}, which needs a tuner: tuner=bayesian"
                )
        size = self.settings.get("max_batch_size")
        sweeper = BasicSweeper(max_batch_size=size, params={str(key): str(value) for key, value in params.items()})
        sweeper.setup(hydra_context=self.hydra_context, task_function=self.task_function, config=self.config)
        return sweeper.sweep(arguments)

    @property
    def folder(self) -> Path:
        """The sweep's folder."""
        assert self.config is not None
        return Path(str(self.config.hydra.sweep.dir))
