"""`bigopt tuner=…` with a stand-in for the pipeline: files, exit codes, resuming, one line for every wrong space."""

import json
import os
import shutil

import pytest
import yaml

from bigopt.cli.main import main
from bigopt.vocabulary.errors import Pruned, RunFailed

BASE = ["dataset=digits", "model=mlp", "tracking=none", "hydra.sweeper.plots=false"]
LR = "optimizer.lr=tag(log,interval(1e-4,1e-1))"


def trained(checked, folder, *, overrides, parent=None, test=None, trial=None):
    """A run whose accuracy falls with the learning rate's distance from 0.01."""
    settings = checked.settings
    if trial is not None and settings.optimizer.lr > 0.09:
        raise Pruned("stopped")
    accuracy = 1 - abs(settings.optimizer.lr - 0.01)
    row = {"name": "baseline", "metrics": {"val/accuracy": accuracy}, "bytes": 100 * len(checked.compression) + 50}
    read = {"final": {"test/accuracy": accuracy - 0.01}} if test else None
    report = {"status": "finished", "stages": [row], "test": read, "budget": {"met": None}, "seed": checked.seed}
    limit = settings.budget.max_bytes
    if limit is not None:
        report["budget"] = {"max_bytes": {"limit": limit, "value": row["bytes"], "met": row["bytes"] <= limit}}
        report["budget"]["met"] = row["bytes"] <= limit
    report["asked"] = {
        "parent": parent, "export": settings.measure.export, "latency": settings.measure.latency, "trial": bool(trial)
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(report))
    checked.save(folder)
    return report


@pytest.fixture
def bigopt(tmp_path, monkeypatch, capfd):
    """Runs one command line in an empty folder: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    before = dict(os.environ)

    def run(*words, execute=trained):
        code = main([*BASE, *words], execute=execute)
        return code, *capfd.readouterr()

    yield run
    for name in set(os.environ) - set(before):
        del os.environ[name]


def sweep_folder(where):
    (folder,) = (where / "multirun").iterdir()
    return folder


def content(where):
    return json.loads((sweep_folder(where) / "sweep.json").read_text())


WRONG = {
    "unknown key": (["tuner=random", "optimizer.lrr=interval(0,1)"], "optimizer.lrr: unknown key 'lrr' in optimizer"),
    "empty choice": (["tuner=random", "optimizer.lr=choice()"], "optimizer.lr: got an empty choice"),
    "low above high": (["tuner=random", "optimizer.lr=interval(1,0.1)"], "optimizer.lr: got low 1 above high 0.1"),
    "log with 0": (
        ["tuner=random", "optimizer.lr=tag(log,interval(0,1))"],
        "optimizer.lr: got log with the lower bound 0",
    ),
    "missing group": (["tuner=random", "model=mlp,nope"], "model: got 'nope'"),
    "step not selected": (
        ["tuner=random", "compression.channel_pruning.ratio=interval(0,1)"],
        "compression.channel_pruning.ratio: channel_pruning is not selected",
    ),
    "nothing to search": (["tuner=random"], "nothing to search"),
    "several objectives with a pruner": (
        ["tuner=random", "tuner.pruner=median", LR, "objective={val/accuracy:max,bytes:min}"],
        "2 objectives",
    ),
    "no value per epoch": (
        ["tuner=asha", LR, "objective={bytes:min}"],
        "objective: got bytes, which has no value per epoch",
    ),
    "value out of range": (
        ["tuner=random", "optimizer.lr=interval(-1,1)"],
        "optimizer.lr: got -1.0, expected a value above 0",
    ),
    "no trials": (
        ["tuner=random", LR, "hydra.sweeper.n_trials=0"],
        "hydra.sweeper.n_trials: got 0, expected a whole number",
    ),
    "storage": (["tuner=random", LR, "hydra.sweeper.storage=foo://x"], "hydra.sweeper.storage: got 'foo://x'"),
    "enqueued value": (
        ["tuner=random", LR, "hydra.sweeper.enqueue=[{optimizer.lr:7}]"],
        "hydra.sweeper.enqueue: optimizer.lr: got 7",
    ),
    "condition on nothing": (
        ["tuner=random", LR, "hydra.sweeper.forbid=[{optimizer.x:1}]"],
        "when or forbid: optimizer.x: unknown key 'x'",
    ),
    "a target that is no number": (
        ["tuner=random", LR, "hydra.sweeper.target=high"],
        "hydra.sweeper.target: got 'high', expected a number",
    ),
    "interval without a tuner": (["-m", LR], "which needs a tuner"),
    "range without -m": ([LR], "optimizer.lr: got several values"),
}


@pytest.mark.parametrize("words", WRONG.values(), ids=WRONG)
def test_a_wrong_space_gets_one_line_and_2(bigopt, tmp_path, words):
    given, line = words
    code, out, err = bigopt(*given)
    assert code == 2, err
    assert line in err and len(err.strip().splitlines()) == 1, err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", ["killed", "interrupted"])
def test_a_search_that_ended_while_its_winner_was_trained_goes_on_there(bigopt, tmp_path, ending):
    words = ("tuner=random", LR, "hydra.sweeper.n_trials=2", "hydra.sweeper.plots=false")
    assert bigopt(*words)[0] == 0
    folder, whole = sweep_folder(tmp_path), content(tmp_path)
    lost = {key: value for key, value in whole.items() if key not in ("confirmed", "code", "stopped")}
    lost |= {"status": "interrupted", "code": 143} if ending == "interrupted" else {}
    (folder / "sweep.json").write_text(json.dumps(lost))
    (folder / "best.yaml").unlink()
    shutil.rmtree(folder / "best" / f"trial-{whole['best']['number']}-seed-2")
    code, out, err = bigopt(*words)
    assert code == 0 and "done already" not in err and "on 3 fresh seeds" in out
    found = content(tmp_path)
    assert found["confirmed"]["values"] == whole["confirmed"]["values"] and (folder / "best.yaml").is_file()


def test_a_sweep_leaves_its_files_and_its_best_runs_again(bigopt, tmp_path):
    code, out, err = bigopt("tuner=random", LR, "hydra.sweeper.n_trials=5", "trainer.max_epochs=3")
    assert code == 0, err
    found, folder = content(tmp_path), sweep_folder(tmp_path)
    assert (found["status"], found["objective"], found["n_trials"]) == ("finished", {"val/accuracy": "max"}, 5)
    assert sum(found["counts"].values()) == 5
    assert found["space"] == {"optimizer.lr": "tag(log, interval(0.0001, 0.1))"}
    rows = (folder / "trials.csv").read_text().splitlines()
    assert rows[0].startswith("number,state,val/accuracy,epochs,optimizer.lr,bytes") and len(rows) == 6
    reports = {
        n: json.loads((folder / str(n) / "report.json").read_text())
        for n in range(5)
        if (folder / str(n) / "report.json").exists()
    }
    accuracies = {n: report["stages"][0]["metrics"]["val/accuracy"] for n, report in reports.items()}
    best = max(accuracies, key=lambda n: accuracies[n])
    assert found["best"]["number"] == best and found["best"]["values"] == {"val/accuracy": accuracies[best]}
    # a trial leaves out what its objective does not need, and never reads the test split
    assert reports[best]["asked"] == {"parent": "sweep", "export": False, "latency": False, "trial": True}
    assert all(report["test"] is None for report in reports.values())
    # the winner: three fresh seeds, measured whole, tested once
    confirmed = found["confirmed"]
    again = [json.loads((folder / "best" / f"trial-{best}-seed-{s}" / "report.json").read_text()) for s in (1, 2, 3)]
    assert confirmed["seeds"] == [1, 2, 3] and confirmed["mean"] == pytest.approx(accuracies[best])
    assert [report["seed"] for report in again] == [1, 2, 3]
    assert sum(report["test"] is not None for report in again) == 1
    assert all(report["asked"]["export"] for report in again)
    # best.yaml is an experiment
    saved = yaml.safe_load((folder / str(best) / "config.yaml").read_text())
    code, _, err = bigopt("--config-dir", str(folder), "experiment=best", execute=trained)
    assert code == 0, err
    (rerun,) = tmp_path.glob("outputs/*/*/config.yaml")
    config = yaml.safe_load(rerun.read_text())
    assert config["tuner"]["name"] == "none" and config["measure"]["export"] is True
    differing = {key for key in saved if saved[key] != config[key]}
    assert differing <= {"tuner", "measure", "tracking", "objective"}
    assert config["optimizer"]["lr"] == found["best"]["params"]["optimizer.lr"]


def test_the_same_command_goes_on_to_the_total(bigopt, tmp_path):
    words = ("tuner=random", LR, "hydra.sweeper.confirm=0")
    assert bigopt(*words, "hydra.sweeper.n_trials=2")[0] == 0
    assert bigopt(*words, "hydra.sweeper.n_trials=4")[0] == 0
    assert sum(content(tmp_path)["counts"].values()) == 4
    code, out, err = bigopt(*words, "hydra.sweeper.n_trials=4")
    assert code == 0 and "done already" in err
    code, out, err = bigopt(*words, "hydra.sweeper.n_trials=3")
    assert code == 2 and "the study has 4 trials already" in err
    assert bigopt(*words, "hydra.sweeper.n_trials=2", "seed=5")[0] == 0  # another configuration: another study
    assert len(list((tmp_path / "multirun").iterdir())) == 2


def test_a_named_study_refuses_another_space(bigopt, tmp_path):
    words = ("tuner=random", "hydra.sweeper.study_name=mine", "hydra.sweep.dir=here", "hydra.sweeper.confirm=0")
    assert bigopt(*words, LR, "hydra.sweeper.n_trials=2")[0] == 0
    code, _, err = bigopt(*words, "optimizer.lr=interval(0.1,0.2)", "hydra.sweeper.n_trials=3")
    assert code == 2
    assert "optimizer.lr: the study has tag(log, interval(0.0001, 0.1)), got interval(0.1, 0.2)" in err
    code, _, err = bigopt("tuner=random", "hydra.sweep.dir=here", "optimizer.lr=interval(0.1,0.2)")
    assert code == 2 and "holds study mine" in err


def test_pipelines_as_choices_with_each_plugins_own_parameters(bigopt, tmp_path):
    code, out, err = bigopt(
        "tuner=random",
        "compression=[],[channel_pruning],[channel_pruning,quantization]",
        "compression.channel_pruning.ratio=interval(0.1,0.9)",
        "compression.quantization.recover.epochs=0",
        "hydra.sweeper.n_trials=12",
        "hydra.sweeper.n_jobs=2",
        "budget.max_bytes=200",
    )
    assert code == 0, err
    assert content(tmp_path)["counts"] == {"complete": 12}
    for n in range(12):
        config = yaml.safe_load((sweep_folder(tmp_path) / str(n) / "config.yaml").read_text())
        steps = config["compression"]
        assert list(steps) in ([], ["channel_pruning"], ["channel_pruning", "quantization"])
        if "channel_pruning" in steps:
            assert 0.1 <= steps["channel_pruning"]["ratio"] <= 0.9
        if "quantization" in steps:
            assert steps["quantization"]["recover"]["epochs"] == 0


def test_exit_codes_of_a_sweep(bigopt):
    words = ("tuner=random", LR, "hydra.sweeper.n_trials=2", "hydra.sweeper.confirm=0")
    assert bigopt(*words, "budget.max_bytes=10")[0] == 3

    def failing(checked, folder, **_):
        raise RunFailed("baseline: the loss is not finite in epoch 1")

    code, out, err = bigopt(*words, execute=failing)
    assert code == 1 and "not finite" in out


def test_a_search_file_with_conditions(bigopt, tmp_path):
    folder = tmp_path / "my" / "search"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(
        "hydra:\n  sweeper:\n    params:\n      optimizer: adam,sgd\n"
        "      optimizer.momentum: {space: 'interval(0.5,0.9)', when: {optimizer: sgd}}\n"
        "      optimizer.lr: 'tag(log, interval(1e-3, 1e-2))'\n"
        "    forbid:\n      - {optimizer: adam, optimizer.lr: '> 0.005'}\n"
    )
    code, out, err = bigopt(
        "--config-dir", "my", "tuner=random", "search=mine", "hydra.sweeper.n_trials=8", "hydra.sweeper.confirm=0"
    )
    assert code == 0, err
    (sweep,) = (tmp_path / "multirun").iterdir()
    chosen = [
        yaml.safe_load((sweep / str(n) / "config.yaml").read_text())["optimizer"]
        for n in range(20)
        if (sweep / str(n)).exists()
    ]
    assert {each["name"] for each in chosen} == {"adam", "sgd"}
    assert all(each["lr"] <= 0.005 for each in chosen if each["name"] == "adam")
    assert all((each["momentum"] != 0.9) == (each["name"] == "sgd") for each in chosen)


def test_plain_sweeps_over_lists_are_hydras_own(bigopt, tmp_path):
    code, out, err = bigopt("-m", "seed=0,1")
    assert code == 0, err
    assert sorted(child.name for child in sweep_folder(tmp_path).iterdir() if child.is_dir()) == ["0", "1"]
