"""Names of run and sweep folders, for the root configuration's interpolations."""

from __future__ import annotations

import hashlib
import inspect
import json
import secrets
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from bigopt.config._job import task_lines

IGNORED = ("resume", "cache", "tracking")
"""Keys that do not change what a sweep searches."""

STUDY = "${bigopt.study:}"


def register() -> None:
    """Makes ``${bigopt.run_dir:…}``, ``${bigopt.subdir:…}`` and ``${bigopt.study:}`` known to OmegaConf."""
    resolver: Any = OmegaConf.register_resolver  # of OmegaConf 2.4; in 2.3 it is an older one without a cache
    if "use_cache" not in inspect.signature(resolver).parameters:
        resolver = OmegaConf.register_new_resolver
    resolver("bigopt.run_dir", run_dir, use_cache=True, replace=True)
    resolver("bigopt.subdir", subdir, use_cache=True, replace=True)
    resolver("bigopt.study", _study, replace=True)


def run_dir(root: str, resume: str | None = None) -> str:
    """The folder of the run to go on with, or a fresh one that no other start can have."""
    return str(resume) if resume else str(Path(root) / f"{_now():%Y-%m-%d/%H-%M-%S}-{secrets.token_hex(4)}")


def subdir(resume: str | None = None) -> str:
    """Where Hydra writes what it composed; a resumed run keeps what its first start was composed of."""
    return f".hydra/resumed-{_now():%Y-%m-%d-%H-%M-%S}-{secrets.token_hex(2)}" if resume else ".hydra"


def study(cfg: DictConfig) -> str:
    """A name that follows from the configuration and the space that is searched, and from nothing else.

    Args:
        cfg: the sweep's own configuration, with Hydra's settings.
    """
    config = {
        str(key): OmegaConf.to_container(node) if OmegaConf.is_config(node := cfg._get_node(key)) else node._value()  # type: ignore[union-attr]
        for key in cfg
        if key not in ("hydra", *IGNORED)
    }
    task = task_lines(cfg.hydra) if "hydra" in cfg else []
    params = OmegaConf.select(cfg, "hydra.sweeper.params") or {}
    searched = [
        config,
        sorted(line for line in task if not _ignored(line)),
        {str(k): str(v) for k, v in params.items()},
    ]
    return hashlib.sha256(json.dumps(searched, sort_keys=True, default=str).encode()).hexdigest()[:12]


def fixed_sweep_dir(cfg: DictConfig) -> list[str]:
    """The override that gives every job of a sweep the sweep's own folder; a job's configuration names another."""
    folder = OmegaConf.to_container(cfg.hydra.sweep, resolve=False)["dir"]  # type: ignore[call-overload,index]
    return [f"hydra.sweep.dir='{folder.replace(STUDY, study(cfg))}'"] if STUDY in str(folder) else []


def _study(*, _root_: DictConfig) -> str:
    return study(_root_)


def _now() -> datetime:
    return datetime.now()


def _ignored(line: str) -> bool:
    return line.lstrip("+~").partition("=")[0].partition(".")[0] in IGNORED
