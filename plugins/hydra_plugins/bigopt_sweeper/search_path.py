"""Lets Hydra find bigopt's configuration and that of every installed plugin, wherever they are installed."""

from __future__ import annotations

from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.errors import ConfigCompositionException
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin

from bigopt.config._resolvers import register
from bigopt.config.tree import Tree, builtin
from bigopt.vocabulary.errors import RequestError

register()  # also in the processes that launchers start, which import this module to unpickle the sources


class BigoptConfigSource(ConfigSource):
    """Configuration completed from the signatures of plugins: ``bigopt://`` is bigopt's own, ``bigopt://<folder>`` a
    folder of the user.
    """

    def __init__(self, provider: str, path: str) -> None:
        super().__init__(provider=provider, path=path)
        self.tree = Tree((Path(self.path),)) if self.path else builtin()

    @staticmethod
    def scheme() -> str:
        """The scheme of this source."""
        return "bigopt"

    def load_config(self, config_path: str) -> ConfigResult:
        """One completed configuration."""
        try:
            entry = self.tree.read(config_path)
        except KeyError:
            raise ConfigLoadError(f"Config not found : {config_path}") from None
        except RequestError as error:
            raise ConfigCompositionException(str(error)) from error
        return ConfigResult(
            config=entry.content,
            path=f"{self.scheme()}://{self.path}",
            provider=self.provider,
            header={"package": entry.package},
        )

    def available(self) -> bool:
        """Whether one of the folders is there."""
        return any(folder.is_dir() for folder in self.tree.folders)

    def is_group(self, config_path: str) -> bool:
        """Whether there is a group of this name."""
        return self.tree.is_group(config_path)

    def is_config(self, config_path: str) -> bool:
        """Whether there is a configuration of this name."""
        return self.tree.has(config_path)

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """Names of the configurations and groups in a group."""
        names: set[str] = set()
        if results_filter in (None, ObjectType.CONFIG):
            names |= set(self.tree.configs(config_path))
        if results_filter in (None, ObjectType.GROUP):
            names |= set(self.tree.groups(config_path))
        return sorted(names)


class BigoptSearchPath(SearchPathPlugin):
    """Puts bigopt's configuration behind everything that the application itself brings."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Adds the source."""
        search_path.append(provider="bigopt", path="bigopt://")


def install() -> None:
    """Makes the plugins known to Hydra, also where its scan of the namespace does not see them."""
    from hydra.core.plugins import Plugins

    from hydra_plugins.bigopt_sweeper.sweeper import BigoptSweeper

    for plugin in (BigoptConfigSource, BigoptSearchPath, BigoptSweeper):
        Plugins.instance().register(plugin)
