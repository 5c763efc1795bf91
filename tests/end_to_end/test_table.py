"""A real table, from its file to the exported model, with few of its labels."""

import json

from sklearn.datasets import load_breast_cancer

from bigopt.cli.main import main

WORDS = (
    "dataset=csv dataset.path=cancer.csv dataset.target=target dataset.labels_per_class=5 dataset.unlabelled=true "
    "model=mlp model.hidden=[16] trainer.max_epochs=40 trainer.batch_size=10 trainer.compile=off tracking=none "
    "transfer=semi_supervised compression=[quantization] measure=quick measure.latency=false hydra.run.dir=out"
).split()


def test_few_labels_of_a_real_table_are_enough_for_a_quantized_net(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    table = load_breast_cancer(as_frame=True)
    table.frame.assign(target=table.frame.target.map(dict(enumerate(table.target_names)))).to_csv(
        "cancer.csv", index=False
    )
    assert main(WORDS) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [row["name"] for row in report["stages"]] == ["baseline", "quantization"]
    assert report["test"]["final"]["test/accuracy"] > 0.8  # 37% of the samples are of the smaller class
    assert "10 of 341 training samples keep their label" in capsys.readouterr().out
