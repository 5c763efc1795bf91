"""Plugins, found through entry points and read from their source; only the chosen one is ever imported."""

from __future__ import annotations

from bigopt.registry.binding import bind
from bigopt.registry.building import build, load
from bigopt.registry.discovery import Catalogue, catalogue, discover, get
from bigopt.registry.plugin import FILLED, GROUPS, RESERVED, Argument, Computed, Plugin
from bigopt.registry.results import check_result

__all__ = [
    "FILLED",
    "GROUPS",
    "RESERVED",
    "Argument",
    "Catalogue",
    "Computed",
    "Plugin",
    "bind",
    "build",
    "catalogue",
    "check_result",
    "discover",
    "get",
    "load",
]
