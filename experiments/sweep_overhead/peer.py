"""A job that only waits, under hydra-optuna-sweeper; runs in that sweeper's own environment."""

import time
from pathlib import Path

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig

ConfigStore.instance().store(
    name="config",
    node={
        "lr": 0.1,
        "defaults": ["_self_", {"override hydra/sweeper": "optuna"}, {"override hydra/sweeper/sampler": "random"}],
        "hydra": {"sweeper": {"n_trials": 60, "n_jobs": 1, "params": {"lr": "tag(log, interval(1e-4, 1e-1))"}}},
    },
)


@hydra.main(version_base=None, config_name="config")
def job(config):  # noqa: ANN001, ANN201, D103
    time.sleep(0.05)
    with (Path(HydraConfig.get().runtime.cwd) / "ends").open("a") as out:
        out.write(f"{time.time()}\n")
    return config.lr


if __name__ == "__main__":
    job()
