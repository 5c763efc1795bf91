"""A trial composed from the one before is what Hydra would have composed."""

import argparse

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf

from hydra_plugins.bigopt_sweeper._remember import RememberingLoader

SWEEPS = [
    ["optimizer.lr={}", "trainer.batch_size=32", "++hydra.job.env_set.TRIAL='{}'"],
    ["model=mlp", "optimizer.lr={}", "model.hidden=[16,{}]"],
    ["model=mlp", "+further={}", "~model.hidden"],
    ["compression=[channel_pruning]", "compression.channel_pruning.ratio=0.{}"],
    ["compression=[quantization]", "compression.quantization.bits={}", "hydra.sweep.subdir=a{}"],
    ["optimizer.name={}dam", "seed={}"],
]


@pytest.fixture(scope="module")
def loader():
    from hydra._internal.hydra import Hydra

    from bigopt.cli.run import _search_path

    GlobalHydra.instance().clear()
    hydra = Hydra.create_main_hydra2("bigopt", _search_path(argparse.Namespace(config_dir=None, config_path=None)))
    yield hydra.config_loader
    GlobalHydra.instance().clear()


def plain(config):
    return OmegaConf.to_container(config, resolve=False)


@pytest.mark.parametrize("sweep", SWEEPS, ids=[" ".join(sweep) for sweep in SWEEPS])
def test_equals_what_hydra_composes(loader, sweep):
    master = loader.load_configuration("config", ["dataset=digits", "hydra.mode=MULTIRUN"], RunMode.MULTIRUN)
    remembering = RememberingLoader(loader)
    for value in (1, 2):
        lines = [line.format(value) for line in sweep]
        assert plain(remembering.load_sweep_config(master, lines)) == plain(loader.load_sweep_config(master, lines))


def test_only_other_choices_are_composed_again(loader):
    master = loader.load_configuration("config", [], RunMode.MULTIRUN)
    remembering, composed = RememberingLoader(loader), []
    real = loader.load_sweep_config
    remembering._loader = type(
        "Counting",
        (),
        {
            "load_sweep_config": lambda _, *given: composed.append(given) or real(*given),
            "get_group_options": lambda _, name: loader.get_group_options(name),
        },
    )()
    for model in ("mlp", "lenet5", "mlp"):
        for rate in (0.1, 0.2, 0.3):
            config = remembering.load_sweep_config(master, [f"model={model}", f"optimizer.lr={rate}"])
            assert (config.model.name, config.optimizer.lr) == (model, rate)
    assert len(composed) == 2


def test_what_a_trial_changes_stays_its_own(loader):
    master = loader.load_configuration("config", [], RunMode.MULTIRUN)
    remembering = RememberingLoader(loader)
    for rate in (0.1, 0.2):
        config = remembering.load_sweep_config(master, [f"optimizer.lr={rate}"])
        assert config.seed == 0
        config.seed = 7
