"""Teachers: trained on the spot, from runs, files, folders and MLflow, and those that cannot be had."""

import pytest
import torch
from distillation_fakes import Brighter, Build, net, untrained
from train.train_fakes import data, make_run, mlp

from bigopt.pipeline.build import Builder
from bigopt.pipeline.notes import Collected
from bigopt.pipeline.structure import save_structure
from bigopt.train import Fitter
from bigopt.vocabulary.data import Schema
from bigopt.vocabulary.errors import RequestError
from bigopt_plugins.transfer.distillation._logits import by_validation
from bigopt_plugins.transfer.distillation.plugin import Distillation


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path, net(), data(image=True), max_epochs=2)


def test_teachers_are_trained_on_the_spot_with_the_recipe_and_weighted(run):
    run.build, run.report = Build(net(6, seed=3), net(2, seed=5)), Collected()
    calls = []

    def fit(teacher, epochs=None, **options):
        calls.append((epochs, options, [type(part) for part in teacher.parts]))
        return type("H", (), {"best_epoch": 1, "epochs": [{}, {}]})

    part = Distillation(["a", "b"], 2, teacher_lr=0.5, weighting="validation")
    run.parts = [part, Brighter(False)]
    part.prepare(run, fit)
    assert calls == [
        (2, {"name": "teacher", "share": True, "lr": 0.5}, [Brighter]),
        (2, {"name": "teacher-2", "share": True, "lr": 0.5}, [Brighter]),
    ]
    answers = [model(run.data.val.x) for model in part._models]
    assert part._shares == by_validation(answers, run.data.val.y, "classification")
    rows = run.report.tables["teachers"]
    assert [row["teacher"] for row in rows] == ["a", "b"] and [row["weight"] for row in rows] == part._shares
    assert rows[0]["val/accuracy"] == pytest.approx((answers[0].argmax(1) == run.data.val.y).double().mean().item())
    assert not part._models.training


def test_born_again_teachers_have_the_students_architecture_and_start_differently(run):
    run.settings.extra["model"] = {"name": "mlp", "hidden": (4,)}
    run.build = Builder(0)
    part = Distillation([None, None], 0)
    part.prepare(run, untrained)
    one, other = part._models
    assert type(one.net).__name__ == "MLP" and one.net.body.fc1.weight.shape == (4, 36)
    assert not torch.equal(one.net.body.fc1.weight, other.net.body.fc1.weight)
    assert run.build.seed == 0


def test_a_run_folder_and_an_onnx_file_answer_alike(run, tmp_path):
    from bigopt.measure import export_onnx

    run.build = Builder(0)
    spec = {"name": "mlp", "hidden": (4,)}
    model = run.build.model(spec, run.data).eval()
    save_structure(model, spec, model.changes, tmp_path / "run")
    export_onnx(model, run.data.train.x[:2], tmp_path / "run" / "teacher.onnx")
    answers = {}
    for name in ("run", "run/teacher.onnx"):
        part = Distillation(str(tmp_path / name))
        part.prepare(run, untrained)
        answers[name] = part._targets(run, run.data.train.x)["logits"]
    assert answers["run"] == pytest.approx(model(run.data.train.x).detach(), abs=1e-6)
    assert answers["run/teacher.onnx"] == pytest.approx(answers["run"], abs=1e-5)
    history = Fitter(tmp_path)(run, 1, parts=[part])
    assert history.epochs[0]["train/distillation"] > 0
    with pytest.raises(RequestError, match="an ONNX file only gives answers"):
        Distillation(str(tmp_path / "run/teacher.onnx"), hints=1.0).prepare(run, untrained)
    with pytest.raises(RequestError, match="cannot be trained"):
        Distillation(str(tmp_path / "run/teacher.onnx"), 1).prepare(run, untrained)


def test_a_folder_of_transformers_answers_in_the_data_s_order_behind_its_own_normalisation(run, tmp_path):
    import json

    run.build, run.report = Builder(0), Collected()
    run.data.schema = Schema("classification", "image", (1, 6, 6), 3, ("cat", "dog", "owl"))
    config = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    made = run.build.model({"name": "hf_vision", "config": config}, run.data).net.eval()
    made.config.id2label = {0: "owl", 1: "cat", 2: "dog"}
    made.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5], "image_std": [0.25]}))
    part = Distillation(str(tmp_path))
    part.prepare(run, untrained)
    x = run.data.train.x
    with torch.no_grad():
        expected = made((x - 0.5) / 0.25).logits[:, [1, 2, 0]]
    assert part._targets(run, x)["logits"] == pytest.approx(expected, abs=1e-5)
    assert any("brought into the data's order" in note for note in run.report.notes)
    run.data.schema = Schema("classification", "image", (1, 6, 6), 5)
    with pytest.raises(RequestError, match="tells 3 classes apart, the data have 5"):
        Distillation(str(tmp_path)).prepare(run, untrained)
    run.data.schema = Schema("classification", "tabular", (36,), 3)
    with pytest.raises(RequestError, match="for images or texts"):
        Distillation(str(tmp_path)).prepare(run, untrained)


@pytest.mark.parametrize("layers", [False, True], ids=["answers", "layers"])
def test_a_tracked_model_is_its_onnx_flavour_or_its_weights(run, tmp_path, monkeypatch, layers):
    from bigopt.measure import export_onnx

    run.build = Builder(0)
    spec = {"name": "mlp", "hidden": (4,)}
    model = run.build.model(spec, run.data).eval()
    asked = []

    def fetch_onnx(uri, into, store):
        asked.append(("onnx", uri, store))
        export_onnx(model, run.data.train.x[:2], into / "model.onnx")
        return into / "model.onnx"

    def fetch(uri, into, store):
        asked.append(("weights", uri, store))
        save_structure(model, spec, model.changes, into)
        return into

    monkeypatch.setattr("bigopt.tracking.fetch.fetch_onnx", fetch_onnx)
    monkeypatch.setattr("bigopt.pipeline.remote.fetch", fetch)
    part = Distillation("models:/net/1", distance=1.0 if layers else 0.0)
    part.prepare(run, untrained)
    assert asked == [("weights" if layers else "onnx", "models:/net/1", None)]
    x = run.data.train.x
    assert part._targets(run, x)["logits"] == pytest.approx(model(x).detach(), abs=1e-5)


@pytest.mark.parametrize(
    ("teacher", "problem"),
    [
        ("./nothing", "expected a model plugin's name"),
        ("./nothing.onnx", "No such file"),
        ("https://host/net.onnx", "nothing is loaded from a URL"),
    ],
    ids=["folder", "file", "url"],
)
def test_teachers_that_cannot_be_had_are_one_clear_line(run, teacher, problem):
    with pytest.raises(RequestError, match=problem):
        Distillation(teacher).prepare(run, untrained)


def test_teachers_for_other_classes_or_other_inputs_are_one_clear_line(run):
    for other, problem in (
        (net(classes=5), r"answers \[5\] numbers a sample, the data have 3"),
        (mlp(), "cannot take"),
    ):
        run.build = Build(other)
        with pytest.raises(RequestError, match=problem):
            Distillation("fake", 0).prepare(run, untrained)
