"""The console script: help, subcommands, wrong input, exit codes, folders, secrets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from bigopt.cli.main import SUBCOMMANDS, main
from bigopt.vocabulary.errors import Interrupted, Pruned, RequestError, RunFailed

REPORT: dict[str, Any] = {"status": "finished", "objective": {"val/accuracy": "max"}, "budget": {"met": None}}


class Fake:
    """Stands for the pipeline: remembers what it was asked to run, and does what the test says."""

    def __init__(self, act=None):
        self.runs = []
        self.act = act or (lambda checked, folder: REPORT)

    def __call__(self, checked, folder, *, overrides, parent=None):
        self.runs.append((checked, Path(folder), list(overrides), parent))
        return self.act(checked, Path(folder))


@pytest.fixture
def bigopt(tmp_path, monkeypatch, capfd):
    """Runs one command line in an empty folder: exit code, the pipeline's stand-in, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    before = dict(os.environ)

    def run(*words, act=None):
        fake = Fake(act)
        code = main(list(words), execute=fake)
        out, err = capfd.readouterr()
        return code, fake.runs, out, err

    yield run
    for name in set(os.environ) - set(before):
        del os.environ[name]


def script(*words: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bigopt", *words], cwd=cwd, env=os.environ | env, capture_output=True, text=True
    )


# --- help, version, subcommands


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["help"], ["model=vgg", "--help"]])
def test_help_says_how_to_use_it(bigopt, words):
    code, runs, out, err = bigopt(*words)
    assert (code, runs, err) == (0, [], "")
    for word in ("usage: bigopt", *SUBCOMMANDS, "compression", "channel_pruning", "fashion_mnist", "exit codes"):
        assert word in out


def test_version(bigopt):
    code, _, out, _ = bigopt("--version")
    assert code == 0
    assert out.split()[0] == "bigopt"


def test_help_is_answered_before_hydra_is_loaded(tmp_path):
    code = (
        "import sys; from bigopt.cli.main import main; main(['--help'])\n"
        "heavy = {'hydra', 'omegaconf', 'torch', 'pytorch_lightning', 'mlflow', 'optuna', 'numpy', 'rich'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_help_takes_less_than_three_imports_of_hydra(tmp_path):
    def seconds(*command: str) -> float:
        times = []
        for _ in range(5):
            start = time.perf_counter()
            subprocess.run([sys.executable, *command], cwd=tmp_path, capture_output=True, check=True)
            times.append(time.perf_counter() - start)
        return min(times)

    assert seconds("-m", "bigopt", "--help") < 3 * seconds("-c", "import hydra")


@pytest.mark.parametrize(("word", "near"), [("reprt", "report"), ("plugin", "plugins"), ("train", None)])
def test_an_unknown_subcommand_offers_the_nearest(bigopt, word, near):
    code, _, out, err = bigopt(word)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert err.startswith(f"bigopt: {word}: no such subcommand, expected plugins,")
    assert (f"did you mean {near}?" in err) if near else ("did you mean" not in err)


def test_a_subcommand_gets_its_words_and_gives_the_code(bigopt, monkeypatch):
    import types

    module = types.ModuleType("bigopt.cli.new_plugin")
    module.main = lambda argv: 0 if argv == ["compression", "mine"] else 1  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "bigopt.cli.new_plugin", module)
    assert bigopt("new-plugin", "compression", "mine")[0] == 0
    assert bigopt("new-plugin")[0] == 1


# --- runs


def test_a_run_gets_a_checked_configuration_and_its_own_folder(bigopt, tmp_path):
    code, runs, _, err = bigopt("model=mlp", "seed=3", "compression=[channel_pruning]")
    assert (code, err) == (0, "")
    ((checked, folder, overrides, parent),) = runs
    assert checked.model["name"] == "mlp"
    assert checked.seed == 3
    assert [step.name for step in checked.compression] == ["channel_pruning"]
    assert folder.parent.parent == tmp_path / "outputs"
    assert (folder / ".hydra" / "config.yaml").is_file()
    assert overrides == ["model=mlp", "seed=3", "compression=[channel_pruning]"]
    assert parent is None


def test_flags_may_stand_anywhere(bigopt):
    code, runs, _, _ = bigopt("seed=0,1", "-m", "model=mlp")
    assert code == 0
    assert [checked.seed for checked, *_ in runs] == [0, 1]


def test_a_hundred_starts_in_one_second_have_folders_of_their_own():
    from bigopt.config._resolvers import run_dir

    assert len({run_dir("outputs") for _ in range(1000)}) == 1000


def test_two_processes_started_at_once_do_not_share_a_folder(tmp_path):
    code = (
        "import sys; from bigopt.cli.main import main\n"
        "sys.exit(main(['model=mlp'], lambda checked, folder, **rest: print(folder) or {}))"
    )
    jobs = [
        subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    folders = [job.communicate()[0].strip() for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0]
    assert len(set(folders)) == 2


def test_folder_names_hold_no_override_values(bigopt, tmp_path):
    _, runs, _, _ = bigopt("model=mlp", "seed=12345")
    _, sweep, _, _ = bigopt("-m", "model=mlp", "seed=12345,54321")
    names = " ".join(str(folder.relative_to(tmp_path)) for _, folder, *_ in runs + sweep)
    assert "mlp" not in names
    assert "12345" not in names


def test_the_user_folder_wins_and_is_completed(bigopt, tmp_path):
    for name, text in {
        "conf/experiment/best.yaml": "seed: 5\ndefaults:\n  - override /model: mine\n",
        "conf/model/mine.yaml": "name: mlp\nhidden: [7]\n",
        "conf/model/resnet.yaml": "name: resnet\nwidth: 48\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    code, runs, _, err = bigopt("--config-dir", "conf", "experiment=best", "model.dropout=0.1")
    assert (code, err) == (0, "")
    checked = runs[0][0]
    assert (checked.seed, checked.model["name"], tuple(checked.model["hidden"])) == (5, "mlp", (7,))
    assert checked.model["dropout"] == 0.1
    _, runs, _, _ = bigopt("--config-dir", "conf", "model=resnet")
    assert (runs[0][0].model["width"], runs[0][0].model["bottleneck"]) == (48, False)


def test_an_objective_takes_the_place_of_an_experiments(bigopt, tmp_path):
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text("objective: {val/loss: min}\n")
    _, runs, _, _ = bigopt("--config-dir", "conf", "experiment=mine")
    assert runs[0][0].settings.objective == {"val/loss": "min"}
    _, runs, _, _ = bigopt("--config-dir", "conf", "experiment=mine", "objective={bytes:min}")
    assert runs[0][0].settings.objective == {"bytes": "min"}


def test_hydras_flags_work(bigopt):
    code, runs, out, _ = bigopt("--cfg", "job", "--package", "model", "model.width=16")
    assert (code, runs) == (0, [])
    assert yaml.safe_load(out)["width"] == 16
    code, runs, out, _ = bigopt("--cfg", "job", "--resolve")
    assert (code, yaml.safe_load(out)["cache"]) == (0, ".bigopt/cache")
    for words in (["--info", "searchpath"], ["--info", "defaults"], ["--info", "config"], ["--hydra-help"]):
        code, runs, _, _ = bigopt(*words)
        assert (code, runs) == (0, [])
    assert not Path("outputs").exists()


# --- exit codes


@pytest.mark.parametrize(
    ("act", "code", "line"),
    [
        (lambda *_: {**REPORT, "budget": {"met": True}}, 0, None),
        (lambda *_: {**REPORT, "budget": {"met": False}}, 3, None),
        (lambda *_: {**REPORT, "status": "failed"}, 1, None),
    ],
)
def test_the_report_gives_the_code(bigopt, act, code, line):
    found, _, _, err = bigopt("model=mlp", act=act)
    assert (found, err) == (code, "")


def raising(error):
    def act(checked, folder):
        raise error

    return act


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (
            RequestError(["dataset.path: no such file", "second"]),
            2,
            "bigopt: dataset.path: no such file\nbigopt: second\n",
        ),
        (RunFailed("loss is not finite at step 3"), 1, "bigopt: loss is not finite at step 3\n"),
        (Interrupted(2), 130, "bigopt: interrupted by signal 2; the run can be resumed\n"),
        (Interrupted(15), 143, "bigopt: interrupted by signal 15; the run can be resumed\n"),
        (KeyboardInterrupt(), 130, "bigopt: interrupted\n"),
        (
            OSError(28, "No space left on device", "/full/x"),
            2,
            "bigopt: /full/x: cannot be written: No space left on device\n",
        ),
        (Pruned(), 0, ""),
    ],
)
def test_an_error_gives_its_code_and_its_lines(bigopt, error, code, line):
    found, _, _, err = bigopt("model=mlp", act=raising(error))
    assert (found, err) == (code, line)


def test_an_unforeseen_error_shows_its_traceback(bigopt):
    code, _, _, err = bigopt("model=mlp", act=raising(ZeroDivisionError("oh")))
    assert code == 1
    assert "Traceback" in err
    assert err.endswith("bigopt: the run failed: ZeroDivisionError: oh\n")


def test_hydras_switch_shows_the_traceback_of_a_wrong_request(bigopt, monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    code, _, _, err = bigopt("model=nope")
    assert code == 2
    assert "Traceback" in err
    assert "bigopt: model: got 'nope'" in err


def seeds(**results):
    """Acts by the seed of the job."""

    def act(checked, folder):
        result = results[f"s{checked.seed}"]
        if isinstance(result, BaseException):
            raise result
        return result

    return act


def scored(accuracy, met):
    return {**REPORT, "stages": [{"name": "a", "metrics": {"val/accuracy": accuracy}}], "budget": {"met": met}}


@pytest.mark.parametrize(
    ("results", "code", "ran"),
    [
        ({"s0": REPORT, "s1": RunFailed("no"), "s2": REPORT}, 0, 3),
        ({"s0": ZeroDivisionError(), "s1": RunFailed("no"), "s2": RequestError("x")}, 1, 3),
        ({"s0": RequestError("x"), "s1": RequestError("x"), "s2": RequestError("x")}, 2, 3),
        ({"s0": scored(0.9, False), "s1": scored(0.8, True), "s2": RunFailed("no")}, 3, 3),
        ({"s0": scored(0.9, True), "s1": scored(0.8, False), "s2": REPORT}, 0, 3),
        ({"s0": REPORT, "s1": Interrupted(15), "s2": REPORT}, 143, 2),
        ({"s0": REPORT, "s1": Interrupted(2), "s2": REPORT}, 130, 2),
        ({"s0": Pruned(), "s1": Pruned(), "s2": Pruned()}, 1, 3),
    ],
)
def test_a_failing_job_does_not_end_a_sweep(bigopt, results, code, ran):
    found, runs, _, _ = bigopt("-m", "model=mlp", "seed=0,1,2", act=seeds(**results))
    assert (found, len(runs)) == (code, ran)


def test_the_same_sweep_has_the_same_folder_and_another_has_another(bigopt):
    def folder(*words):
        _, runs, _, _ = bigopt("-m", *words)
        assert len({path.parent for _, path, *_ in runs}) == 1
        assert [path.name for _, path, *_ in runs] == [str(number) for number in range(len(runs))]
        return runs[0][1].parent

    first = folder("model=mlp", "seed=0,1")
    assert folder("model=mlp", "seed=0,1") == first
    assert folder("seed=0,1", "model=mlp", "cache=off") == first
    assert folder("model=mlp", "seed=0,2") != first
    assert folder("model=resnet", "seed=0,1") != first


def test_a_job_and_what_it_came_to_can_cross_processes():
    """Launchers of other processes pickle both, and the search path with its sources."""
    import pickle

    from bigopt.cli.job import Job
    from bigopt.cli.outcome import Outcome, outcomes
    from hydra_plugins.bigopt_sweeper.search_path import BigoptConfigSource

    outcome = Outcome(3, "finished", {"budget": {"met": False}}, ("x",))
    assert pickle.loads(pickle.dumps([outcome])) == [outcome]
    assert pickle.loads(pickle.dumps(Job())) == Job()
    source = pickle.loads(pickle.dumps(BigoptConfigSource("bigopt", "bigopt://")))
    assert source.load_config("model/mlp").config.name == "mlp"
    returned = type("JobReturn", (), {"_return_value": outcome})()
    assert list(outcomes([[returned], [RuntimeError()]])) == [outcome]


# --- wrong input


WRONG = [
    (["model=resnett"], ["model: got 'resnett', expected one of alexnet,", "did you mean resnet?"]),
    (["optimiser.lr=1"], ["optimiser.lr: unknown key 'optimiser'", "did you mean optimizer.lr?"]),
    (
        ["trainer.max_epoch=3"],
        ["trainer.max_epoch: unknown key 'max_epoch'", "did you mean trainer.max_epochs?"],
    ),
    (["+foo=1"], ["foo: unknown key"]),
    (["+model.widht=1"], ["model.widht", "did you mean width?"]),
    (["trainer.max_epochs=three"], ["trainer.max_epochs: got 'three' (str), expected int"]),
    (["trainer.max_epochs=0"], ["trainer.max_epochs: got 0, expected at least 1"]),
    (["trainer.max_epochs.x=1"], ["trainer.max_epochs.x: unknown key"]),
    (["compression=[nope]"], ["compression: got 'nope', expected one of"]),
    (["compression=[channel_pruning,channel_pruning]"], ["compression: got channel_pruning twice"]),
    (
        ["compression=[quantization]", "compression.channel_pruning.ratio=0.5"],
        ["compression.channel_pruning.ratio: channel_pruning is not selected: compression=[quantization]"],
    ),
    (
        ["+compression.channel_pruning.ratio=0.5"],
        ["compression.channel_pruning: settings of a step that is not"],
    ),
    (
        ["compression={channel_pruning:{ratio:0.5}}"],
        ["compression", "channel_pruning"],
    ),
    (
        ["compression=[quantization,channel_pruning]"],
        ["channel_pruning needs a trainable model, but quantization"],
    ),
    (["dataset=csv", "dataset.target=y"], ["dataset.path: missing"]),
    (["objective={val/accuracy:up}"], ["objective.val/accuracy: got 'up', expected max or min"]),
    (["seed=1.5"], ["seed: got 1.5, expected a whole number"]),
    (["model=mlp", "report"], ["'report': not an override"]),
    (["seed"], ["no such subcommand"]),
    (["lr=="], ["'lr==': not an override"]),
    (["model=resnet,vgg"], ["model: got several values (resnet,vgg); add -m"]),
    (["+experiment=demo"], ["+experiment: experiment is chosen already"]),
    (["resume=nowhere"], ["resume: got 'nowhere', expected a run folder; there is no such folder"]),
    (["tracking.uri=${oc.env:NOT_SET_ANYWHERE}"], ["tracking.uri: ", "NOT_SET_ANYWHERE"]),
    (["hydra.run.dir=/dev/null/x"], ["/dev/null/x: cannot be written"]),
    (["hydra/launcher=nope"], ["hydra/launcher: got 'nope', expected one of basic"]),
    (["hydra.nope=1"], ["hydra.nope: unknown key 'nope' in hydra"]),
    (["-m", "seed=interval(0,1)"], ["seed: got interval(0,1), which needs a tuner"]),
    (["-m", "model=mlp", "hydra.run.dir=a,b"], ["hydra.run.dir"]),
    (["-cn", "nope"], ["Cannot find primary config 'nope'"]),
    (["--config-dir", "nowhere"], ["--config-dir: got 'nowhere', expected a folder"]),
    (["--cfg", "job", "-m"], ["only one of"]),
    (["--resolve"], ["--resolve: only together with --cfg"]),
    (["--experimental-rerun", "x.pickle"], ["--experimental-rerun: refused"]),
    (["model._target_=os.system"], ["model._target_"]),
    (["+model._target_=os.system"], ["model._target_: got 'os.system', refused"]),
    (["+hydra.callbacks.x._target_=os.system"], ["hydra.callbacks.x._target_: got 'os.system', refused"]),
]


@pytest.mark.parametrize(("words", "parts"), WRONG, ids=[" ".join(words) for words, _ in WRONG])
def test_wrong_input_is_one_clear_line_and_leaves_nothing(bigopt, tmp_path, words, parts):
    code, runs, _, err = bigopt(*words)
    assert (code, runs) == (2, [])
    lines = err.splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("bigopt: ")
    for part in parts:
        assert part in lines[0]
    assert not [path for path in tmp_path.rglob("*") if path.name != "multirun.yaml" and path.is_file()]


def test_all_wrong_keys_are_reported_together(bigopt):
    code, _, _, err = bigopt(
        "optimiser.lr=1", "trainer.max_epoch=3", "model=resnett", "seed=-1", "trainer.batch_size=0"
    )
    assert code == 2
    lines = err.splitlines()
    assert [line.split(":")[1].strip() for line in lines] == [
        "model", "optimiser.lr", "trainer.max_epoch", "trainer.batch_size", "seed",
    ]  # fmt: skip


def test_a_sweep_with_a_key_that_a_choice_lacks_is_refused_before_it_starts(bigopt):
    code, runs, _, err = bigopt("-m", "model=mlp,resnet", "model.dropout=0.1,0.2")
    assert (code, runs) == (2, [])
    assert "model.dropout" in err


def test_the_script_itself_gives_codes_and_lines(tmp_path):
    for words, start in [
        (["optimiser.lr=1"], "bigopt: optimiser.lr: unknown key"),
        (["compression=[quantization,channel_pruning]"], "bigopt: compression: channel_pruning needs"),
        (["nope"], "bigopt: nope: no such subcommand"),
    ]:
        done = script(*words, cwd=tmp_path)
        assert done.returncode == 2
        assert done.stderr.startswith(start)
        assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


# --- resume


def test_resume_goes_on_in_the_folder_with_its_own_configuration(bigopt):
    def leave(checked, folder):
        checked.save(folder)
        return REPORT

    _, runs, _, _ = bigopt("model=mlp", "model.hidden=[5]", "trainer.max_epochs=3", act=leave)
    folder = runs[0][1]
    code, runs, _, err = bigopt(f"resume={folder}", "tracking=none")
    assert (code, err) == (0, "")
    checked, again, *_ = runs[0]
    assert again == folder == checked.resume
    assert (checked.model["name"], tuple(checked.model["hidden"])) == ("mlp", (5,))
    assert checked.settings.trainer.max_epochs == 3
    assert checked.settings.tracking.name == "none"
    first = yaml.safe_load((folder / ".hydra" / "config.yaml").read_text())
    assert first["model"]["name"] == "mlp"  # what the first start was composed of is kept
    code, runs, _, err = bigopt(f"resume={folder}", "trainer.max_epochs=9")
    assert (code, runs) == (2, [])
    assert "trainer.max_epochs: the run has 3, got 9" in err


def test_two_runs_cannot_work_in_one_folder(bigopt, tmp_path):
    from bigopt.store.locks import lock

    with lock(tmp_path / "here" / ".run"):
        code, runs, _, err = bigopt("model=mlp", "hydra.run.dir=here")
    assert (code, runs) == (2, [])
    assert "another bigopt run is working in this folder" in err


# --- secrets


def test_secrets_are_found_nowhere(bigopt, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_PASSWORD", "environmental-secret")

    def act(checked, folder):
        assert checked.settings.tracking.uri == "postgresql://u:uri-secret@h/db"
        assert checked.settings.tracking.experiment == "environmental-secret"
        checked.save(folder)
        raise RunFailed("cannot reach postgresql://u:uri-secret@h/db with environmental-secret")

    words = ["model=mlp", "tracking.uri=postgresql://u:uri-secret@h/db", "tracking.experiment=${oc.env:MY_PASSWORD}"]
    _, runs, out, err = bigopt(*words, act=act)
    assert "secret" not in " ".join(runs[0][2])
    _, _, sweep_out, sweep_err = bigopt("-m", *words, "seed=0,1", act=act)
    _, _, cfg_out, _ = bigopt("--cfg", "all", *words)
    said = out + err + sweep_out + sweep_err + cfg_out
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name == "multirun.yaml" for path in files)
    written = "".join(path.read_text() for path in files) + " ".join(map(str, files))
    for secret in ("uri-secret", "environmental-secret"):
        assert secret not in said
        assert secret not in written
    assert "cannot reach" in err


# --- report


def test_report_shows_the_newest_run(bigopt, tmp_path):
    code, _, _, err = bigopt("report")
    assert code == 2
    assert len(err.splitlines()) == 1
    folder = tmp_path / "outputs" / "day" / "run"
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps({**REPORT, "schema": 1, "seed": 0, "stages": []}))
    code, _, out, _ = bigopt("report", "--json")
    assert (code, json.loads(out)["status"]) == (0, "finished")


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"stages": 1}'])
def test_a_damaged_report_is_named(bigopt, tmp_path, text):
    (tmp_path / "report.json").write_text(text)
    code, _, _, err = bigopt("report", ".")
    assert code == 2
    assert len(err.splitlines()) == 1
    assert "report.json" in err


def test_report_syncs_what_is_left(bigopt, tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr("bigopt.tracking.sync", lambda folder, uri: synced.append((str(folder), uri)) or 2)
    (tmp_path / "outputs").mkdir()
    (tmp_path / "multirun").mkdir()
    code, _, out, _ = bigopt("report", "--sync")
    assert (code, out) == (0, "4 events sent\n")
    assert synced == [("outputs", None), ("multirun", None)]


def test_ui_opens_on_the_port(bigopt, monkeypatch):
    asked = []
    monkeypatch.setattr("bigopt.tracking.open_ui", lambda uri, port: asked.append((uri, port)) or 0)
    assert bigopt("ui", "--port", "5123", "--uri", "sqlite:///x.db")[0] == 0
    assert asked == [("sqlite:///x.db", 5123)]
    code, _, _, err = bigopt("ui", "--port", "70000")
    assert (code, err) == (2, "bigopt: --port: got 70000, expected a number from 1 to 65535\n")
