"""From Hydra's whole configuration to that of the job inside it."""

from __future__ import annotations

import copy
import os
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict, read_write


def job_config(cfg: DictConfig) -> DictConfig:
    """The configuration without Hydra's own settings."""
    job = copy.deepcopy(cfg)
    with read_write(job), open_dict(job):
        del job["hydra"]
    return job


def preview(cfg: DictConfig) -> DictConfig:
    """What a job of this configuration will see, ``${hydra:…}`` included, before Hydra has made its folder."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    with read_write(cfg), open_dict(cfg.hydra.runtime):
        cfg.hydra.runtime.output_dir = os.path.abspath(str(cfg.hydra.run.dir))
        cfg.hydra.mode = RunMode.RUN
    HydraConfig.instance().set_config(cfg)
    return job_config(cfg)


def task_lines(hydra: Any) -> list[str]:
    """The overrides of a job as they were given: reading them the usual way would put secrets into references."""
    lines = OmegaConf.to_container(hydra.overrides.task, resolve=False)
    assert isinstance(lines, list)
    return [str(line) for line in lines]
