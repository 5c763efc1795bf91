"""What is trained already is compressed without being trained again."""

import torch

from bigopt.cli.main import main
from bigopt.pipeline.build import Builder
from bigopt.pipeline.structure import load_structure, save_structure


def test_no_epochs_take_the_model_as_its_weights_have_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data, spec = Builder(0).dataset("digits"), {"name": "mlp", "hidden": [16]}
    trained = Builder(7).model(spec, data)
    save_structure(trained, spec, trained.changes, tmp_path / "trained")
    shared = "dataset=digits model=mlp model.hidden=[16] measure.export=false measure.latency=false tracking=none"
    asked = ["model.weights=trained", "trainer.max_epochs=0", "compression=[random_pruning]", "hydra.run.dir=out"]
    kept = ["compression.random_pruning.ratio=0", "compression.random_pruning.recover.epochs=0"]
    assert main([*shared.split(), *asked, *kept]) == 0
    after = load_structure(tmp_path / "out", lambda known: Builder(1).model({**known, "weights": None}, data))
    x = data.val.take(torch.arange(20))
    assert torch.equal(after.eval()(x), trained.eval()(x))
    assert not list((tmp_path / "out" / "fits").glob("*"))
