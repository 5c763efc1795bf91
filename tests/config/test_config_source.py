"""Composition through Hydra's own API: completion, synthesis, and plugins of strangers."""

from __future__ import annotations

import sys
from dataclasses import fields

import pytest
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf

from bigopt.config.groups import SETTINGS
from bigopt.config.tree import Tree, builtin
from bigopt.vocabulary.settings import StepOptions

THEIR_STEP = "[bigopt.compression]\ntheir_method = their_package.method:Method\n"


@pytest.mark.parametrize("group", sorted(SETTINGS))
def test_a_settings_group_has_every_field_of_its_dataclass(composed, group):
    cfg = composed()
    assert set(cfg[group]) == {field.name for field in fields(SETTINGS[group])}


def test_a_file_wins_over_the_default_of_its_schema(composed):
    assert composed("trainer=debug").trainer.max_epochs == 1
    assert composed("trainer=debug").trainer.eval_batch_size == 1024  # not in the file: the dataclass's
    assert composed("optimizer=sgd").optimizer.lr == 0.1


def test_every_shipped_file_composes(composed):
    tree = builtin()
    for group in (
        "model",
        "dataset",
        "transfer",
        "optimizer",
        "scheduler",
        "trainer",
        "tracking",
        "budget",
        "evaluate",
    ):
        for name in tree.configs(group):
            assert composed(f"{group}={name}")[group] is not None
    for group in ("measure", "augment", "norm", "tuner", "experiment", "debug"):
        for name in tree.configs(group):
            composed(f"{group}={name}")
    for name in tree.configs("compression"):
        assert list(composed(f"compression=[{name}]").compression) == [name]


def test_plugin_arguments_are_overridden_without_plus(composed):
    cfg = composed("model=resnet", "model.width=16", "dataset=digits", "dataset.val=0.3")
    assert cfg.model.width == 16
    assert cfg.dataset.val == 0.3


def test_arguments_from_the_data_are_null_and_can_be_set(composed):
    assert composed().model.num_classes is None
    assert composed("model.num_classes=7").model.num_classes == 7


def test_a_step_has_its_options(composed):
    cfg = composed(
        "compression=[channel_pruning,quantization]",
        "compression.channel_pruning.ratio=0.7",
        "compression.channel_pruning.recover.epochs=2",
        "compression.quantization.ignore=[head]",
    )
    assert list(cfg.compression) == ["channel_pruning", "quantization"]
    assert cfg.compression.channel_pruning.ratio == 0.7
    assert cfg.compression.channel_pruning.recover == {
        "epochs": 2, "lr": None, "teacher": None, "temperature": 2.0, "alpha": 0.7,
    }  # fmt: skip
    assert cfg.compression.quantization.ignore == ["head"]
    assert {field.name for field in fields(StepOptions)} <= set(cfg.compression.quantization)


def test_the_list_keeps_its_order_and_may_be_empty(composed):
    assert list(composed("compression=[quantization,channel_pruning]").compression) == [
        "quantization",
        "channel_pruning",
    ]
    assert composed("compression=[]").compression == {}
    assert composed("experiment=demo", "compression=[]").compression != {}  # the experiment speaks of steps itself


def test_a_mapping_argument_takes_keys_one_by_one(composed):
    cfg = composed("transfer=distillation", "transfer.teacher.name=vgg", "transfer.teacher.width=0.5")
    assert cfg.transfer.teacher == {"name": "vgg", "width": 0.5}
    assert composed("transfer=distillation", "transfer.teacher=outputs/x").transfer.teacher == "outputs/x"
    with pytest.raises(ConfigCompositionException):
        composed("transfer=distillation", "transfer.teecher.name=vgg")


def test_a_stranger_needs_nothing_but_an_entry_point(composed, stranger):
    stranger(THEIR_STEP + "[bigopt.models]\ntheir_net = their_package.method:net\n")
    cfg = composed("compression=[their_method]", "compression.their_method.ratio=0.9", "model=their_net")
    step = cfg.compression.their_method
    assert step.ratio == 0.9
    assert step.layers == []
    assert step.criterion == "l1"
    assert step.plugin is None
    assert step.schedule.name == "one_shot"
    assert cfg.model.depth == 3
    assert cfg.model.num_classes is None
    assert OmegaConf.is_missing(cfg.model, "label")
    assert "their_package" not in sys.modules


def test_a_stranger_may_ship_a_file_with_opinions(composed, stranger):
    stranger(THEIR_STEP, **{"compression__their_method": "their_method:\n  ratio: 0.4\n  recover: {epochs: 3}\n"})
    step = composed("compression=[their_method]", "compression.their_method.extra.a=1").compression.their_method
    assert step.ratio == 0.4
    assert step.recover.epochs == 3
    assert step.recover.alpha == 0.7
    assert step.extra == {"a": 1}


@pytest.mark.parametrize(
    "text",
    [
        "ratio: 0.4\n",
        "their_method:\n  ratio: 0.4\n",
        "# @package compression.their_method\nratio: 0.4\n",
        "# @package _global_\ncompression:\n  their_method:\n    ratio: 0.4\n",
    ],
)
def test_a_step_file_may_be_written_in_every_way_that_hydra_knows(composed, stranger, text):
    stranger(THEIR_STEP, compression__their_method=text)
    step = composed("compression=[their_method]", "compression.their_method.strict=true").compression.their_method
    assert (step.ratio, step.layers, step.strict) == (0.4, [], True)


def test_an_alias_is_completed_from_the_plugin_it_names(composed, stranger):
    stranger(THEIR_STEP, compression__again="again:\n  plugin: their_method\n  ratio: 0.6\n")
    cfg = composed("compression=[their_method,again]")
    assert list(cfg.compression) == ["their_method", "again"]
    assert cfg.compression.again.ratio == 0.6
    assert cfg.compression.again.layers == []


def test_a_file_that_builds_on_another_changes_only_what_it_says(composed, stranger):
    stranger(THEIR_STEP, model__wide="defaults:\n  - resnet\n  - _self_\nwidth: 64\n")
    cfg = composed("model=wide")
    assert (cfg.model.name, cfg.model.width, cfg.model.bottleneck) == ("resnet", 64, False)


def test_a_shipped_file_is_not_hidden_by_a_strangers(composed, stranger):
    stranger(THEIR_STEP, config="seed: 99\n", model__resnet="name: resnet\nwidth: 99\n")
    assert composed().seed == 0
    assert composed("model=resnet").model.width == 32


def test_a_broken_file_is_named_with_its_line(composed, stranger):
    stranger(THEIR_STEP, compression__their_method="their_method:\n  ratio: [0.4\n")
    with pytest.raises(ConfigCompositionException, match=r"their_method\.yaml:\d+: not valid YAML"):
        composed("compression=[their_method]")


def test_an_objective_may_name_anything(composed):
    assert composed("objective={val/accuracy:max,bytes:min}").objective == {"val/accuracy": "max", "bytes": "min"}


def test_an_experiment_speaks_about_everything(composed):
    cfg = composed("experiment=demo")
    assert list(cfg.compression) == ["channel_pruning", "quantization"]
    assert cfg.dataset.name == "digits"
    assert cfg.compression.channel_pruning.recover.teacher == "baseline"


def test_a_path_cannot_leave_the_tree(tmp_path):
    (tmp_path / "outside.yaml").write_text("a: 1\n")
    (tmp_path / "tree" / "model").mkdir(parents=True)
    tree = Tree((tmp_path / "tree",))
    assert tree.file("model/../../outside") is None
