"""What `check` accepts, what it makes of it, and what it refuses."""

from __future__ import annotations

import pytest
import yaml

from bigopt.config import Checked, check
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.settings import Recover, StepOptions

BASE = {"model": {"name": "resnet"}, "dataset": {"name": "digits"}}


def refused(cfg, composed=False):
    with pytest.raises(RequestError) as caught:
        check(cfg, composed=composed)
    return caught.value.problems


def with_(**changes):
    return {**BASE, **changes}


def test_a_partial_configuration_keeps_the_defaults():
    checked = check(BASE)
    assert checked.settings.trainer.max_epochs == 20
    assert checked.settings.objective == {"val/accuracy": "max"}
    assert not checked.objective_given
    assert checked.transfer == {"name": "none"}
    assert checked.compression == []
    assert checked.seed == 0
    assert checked.settings.extra["model"]["name"] == "resnet"
    assert checked.resolved["trainer"]["max_epochs"] == 20


def test_a_composed_configuration_is_typed(composed):
    cfg = composed(
        "model=mlp",
        "model.hidden=[10,5]",
        "compression=[channel_pruning]",
        "compression.channel_pruning.recover.epochs=2",
        "compression.channel_pruning.ignore=[head]",
        "transfer=distillation",
        "augment=auto",
    )
    checked = check(cfg, composed=True)
    assert list(checked.model["hidden"]) == [10, 5]
    assert "num_classes" not in checked.model
    assert checked.model["weights"] is None
    (step,) = checked.compression
    assert (step.name, step.plugin, step.path) == ("channel_pruning", "channel_pruning", "compression.channel_pruning")
    assert step.options == StepOptions(recover=Recover(epochs=2), ignore=("head",))
    assert step.arguments["ratio"] == 0.5
    assert "recover" not in step.arguments
    assert checked.transfer["name"] == "distillation"
    assert checked.transfer.get("teacher") is None
    (trick,) = checked.recipe
    assert (trick.name, trick.plugin, trick.path) == ("augment", "augment", "augment")
    assert "seed" not in checked.dataset
    assert checked.settings.optimizer.betas == (0.9, 0.999)


def test_all_problems_are_reported_together():
    problems = refused(
        with_(
            trainer={"max_epochs": 0, "epochs": 3, "precision": "fp8"},
            optimizer={"lr": -1},
            model={"name": "resnett"},
            seed=-1,
            objective={"val/accuracy": "up"},
        )
    )
    text = "\n".join(problems)
    for part in ("trainer", "epochs", "precision", "optimizer.lr", "resnet", "seed", "objective.val/accuracy"):
        assert part in text
    assert len(problems) >= 6


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"trainer": {"max_epochs": -1}}, "trainer.max_epochs: got -1, expected 0 or more"),
        (
            {"trainer": {"max_epochs": 0}},
            "trainer.max_epochs: got 0, expected at least 1; 0 is for a model that is trained already (model.weights)",
        ),
        ({"trainer": {"label_smoothing": 1.0}}, "trainer.label_smoothing: got 1.0, expected a share in [0, 1)"),
        ({"trainer": {"ema": 1.0}}, "trainer.ema: got 1.0, expected a decay in (0, 1)"),
        ({"optimizer": {"lr": 0}}, "optimizer.lr: got 0, expected a value above 0"),
        ({"optimizer": {"betas": [0.9, 1.5]}}, "optimizer.betas: got [0.9, 1.5], expected a share in [0, 1)"),
        ({"evaluate": {"severities": [0]}}, "evaluate.severities: got [0], expected strengths from 1 to 5"),
        ({"measure": {"threads": 0}}, "measure.threads: got 0, expected at least 1"),
        ({"seed": "x"}, "seed: got 'x', expected a whole number from 0 to 4294967295"),
        ({"control": "yes"}, "control: got 'yes', expected true or false"),
    ],
)
def test_a_value_out_of_range_is_refused(changes, expected):
    assert refused(with_(**changes)) == (expected,)


def test_ranges_of_a_steps_options_are_checked():
    step = {"channel_pruning": {"recover": {"alpha": 2.0}, "schedule": {"rounds": 0}, "max_drop": -0.1}}
    assert refused(with_(compression=step)) == (
        "compression.channel_pruning.recover.alpha: got 2.0, expected a share in [0, 1]",
        "compression.channel_pruning.schedule.rounds: got 0, expected at least 1",
        "compression.channel_pruning.max_drop: got -0.1, expected 0 or more",
    )


def test_every_range_belongs_to_a_setting():
    from bigopt.config._complete import defaults_of
    from bigopt.config._ranges import RANGES
    from bigopt.config.groups import SETTINGS

    def has(mapping, keys):
        return keys[0] in mapping and (len(keys) == 1 or has(mapping[keys[0]], keys[1:]))

    known = {group: defaults_of(schema) for group, schema in SETTINGS.items()} | defaults_of(StepOptions)
    assert [path for path in RANGES if not has(known, path.split("."))] == []


def test_unknown_names_get_the_nearest():
    assert "max_epochs" in refused(with_(trainer={"max_epoch": 3}))[0]
    assert "did you mean trainer?" in refused(with_(trainr={}))[0]
    assert "width" in refused(with_(model={"name": "resnet", "widht": 3}))[0]
    assert "channel_pruning" in refused(with_(compression={"chanel_pruning": {}}))[0]


def test_a_missing_argument_is_named(composed):
    problems = refused(composed("dataset=csv"), composed=True)
    assert any(problem.startswith("dataset.path:") for problem in problems)
    assert any(problem.startswith("dataset.target:") for problem in problems)


def test_a_wrong_type_is_refused():
    (problem,) = refused(with_(model={"name": "resnet", "width": "wide"}))
    assert problem.startswith("model.width:")
    (problem,) = refused(with_(trainer={"batch_size": "many"}))
    assert problem.startswith("trainer.batch_size:")


def test_settings_of_a_step_that_is_not_selected_are_a_ghost(composed):
    cfg = composed("compression=[quantization]", "+compression.channel_pruning.ratio=0.5")
    (problem,) = refused(cfg, composed=True)
    assert problem.startswith("compression.channel_pruning: settings of a step that is not selected")


def test_an_order_that_cannot_work_is_refused(composed):
    (problem,) = refused(composed("compression=[quantization,channel_pruning]"), composed=True)
    assert problem == (
        "compression: channel_pruning needs a trainable model, but quantization leaves it frozen; "
        "put channel_pruning before quantization"
    )
    assert len(check(composed("compression=[channel_pruning,quantization]"), composed=True).compression) == 2


def test_a_strangers_facts_are_read_without_importing_it(composed, stranger):
    stranger("[bigopt.compression]\ntheir_method = their_package.method:Method\n")
    (problem,) = refused(composed("compression=[their_method,channel_pruning]"), composed=True)
    assert "their_method leaves it frozen" in problem


def test_a_broken_plugin_gives_its_reason_when_it_is_chosen(composed, stranger):
    stranger("[bigopt.compression]\ntheir_method = their_package.gone:Method\n")
    check(composed())  # the others are not harmed
    (problem,) = refused(composed("compression=[their_method]"), composed=True)
    assert "their_method" in problem
    assert "broken" in problem
    assert "gone" in problem


@pytest.mark.parametrize(
    "cfg",
    [
        {"model": {"name": "resnet", "_target_": "os.system"}},
        {"trainer": {"max_epochs": {"_target_": "os.system"}}},
        {"compression": {"channel_pruning": {"criterion": {"_target_": "os.system"}}}},
        {"transfer": {"name": "distillation", "teacher": {"name": "resnet", "_target_": "os.system"}}},
        {"dataset": {"name": "csv", "path": {"x": [{"_target_": "os.system"}]}}},
        {"augment": {"name": "custom", "_target_": "os.system"}},
        {"model": {"name": "resnet", "_partial_": True}},
    ],
)
def test_a_target_is_refused_wherever_nobody_declared_it(cfg):
    problems = refused({**BASE, **cfg})
    assert any("refused: code is only imported by model=custom" in problem for problem in problems)


def test_a_target_is_allowed_where_a_plugin_takes_a_callable(stranger):
    from bigopt.config._targets import refused as targets

    stranger("[bigopt.compression]\ntheir_method = their_package.method:Method\n")
    step = {"criterion": {"_target_": "mine.score"}}
    assert targets({"compression": {"their_method": step}}) == []
    assert targets({"compression": {"again": {"plugin": "their_method", **step}}}) == []
    assert len(targets({"compression": {"their_method": {"ratio": {"_target_": "mine.score"}}}})) == 1
    assert targets({"model": {"name": "custom", "_target_": "mine.Net"}}) == []


def test_hydra_may_only_build_its_own_plugins():
    from bigopt.config._targets import refused_by_hydra

    assert refused_by_hydra({"launcher": {"_target_": "hydra_plugins.x.Y"}}) == []
    assert (
        refused_by_hydra({"launcher": {"_target_": "hydra._internal.core_plugins.basic_launcher.BasicLauncher"}}) == []
    )
    (problem,) = refused_by_hydra({"callbacks": {"mine": {"_target_": "os.system"}}})
    assert problem.startswith("hydra.callbacks.mine._target_")


def test_saved_and_loaded_is_the_same(composed, tmp_path):
    cfg = composed("compression=[channel_pruning]", "model.width=16", "objective={bytes:min}", "seed=7", "cache=off")
    checked = check(cfg, composed=True)
    checked.save(tmp_path)
    loaded = Checked.load(tmp_path)
    assert loaded == checked
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["model"]["width"] == 16
    assert loaded.settings.cache == "off"


@pytest.mark.parametrize("text", ["a: [", "- 1\n", "\x00"])
def test_a_damaged_file_is_refused(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(RequestError, match="damaged"):
        Checked.load(tmp_path)


def test_loading_runs_no_code(tmp_path):
    (tmp_path / "config.yaml").write_text("model: !!python/object/apply:os.system ['touch hacked']\n")
    with pytest.raises(RequestError, match="damaged"):
        Checked.load(tmp_path)
    assert not (tmp_path / "hacked").exists()


def test_resume_needs_a_run_folder(tmp_path):
    assert refused(with_(resume=str(tmp_path / "nope")))[0].endswith("there is no such folder")
    assert refused(with_(resume=str(tmp_path)))[0].endswith("it holds no config.yaml")


def test_checking_imports_nothing_heavy(subprocess_modules):
    loaded = subprocess_modules(
        "from bigopt.config import check; check({'model': {'name': 'resnet'}, 'dataset': {'name': 'digits'}})"
    )
    assert loaded & {"torch", "pytorch_lightning", "mlflow", "optuna", "pandas", "numpy", "bigopt_plugins"} == set()
