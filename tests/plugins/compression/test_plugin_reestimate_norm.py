"""Running statistics computed anew are those of the compressed model's activations, and nothing else changes."""

import pytest
import torch
from torch import nn
from train.train_fakes import cnn, data, make_run, mlp

from bigopt.vocabulary.errors import RequestError
from bigopt_plugins.compression.reestimate_norm import ReestimateNorm


def test_statistics_are_the_means_over_the_batches(tmp_path):
    run = make_run(tmp_path, cnn(), data(image=True), batch_size=64)
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    with torch.no_grad():
        run.model[0].weight *= 3
        out = run.model[0](run.data.train.x)
    run.model.train()
    ReestimateNorm().finish(run, None)
    norm = run.model[1]
    assert norm.running_mean == pytest.approx(out.mean((0, 2, 3)).detach(), abs=1e-5)
    assert norm.running_var == pytest.approx(out.var((0, 2, 3)).detach(), rel=1e-4)
    assert norm.momentum == 0.1 and run.model.training
    assert torch.equal(norm.weight, before["1.weight"]) and torch.equal(run.model[5].weight, before["5.weight"])


def test_dropout_sleeps_meanwhile_and_batches_count_alike(tmp_path):
    run = make_run(tmp_path, mlp(dropout=0.9), data(), batch_size=16)
    run.model.insert(0, nn.Dropout(0.9))
    ReestimateNorm(samples=32).finish(run, None)
    out = run.model[1](run.data.train.x[:32])
    assert run.model[2].running_mean == pytest.approx(out.mean(0).detach(), abs=1e-5)
    assert run.model[2].num_batches_tracked == 2


def test_no_training_follows_and_a_model_without_is_noted(tmp_path):
    run = make_run(tmp_path, nn.Sequential(nn.Linear(5, 3)))
    notes = []
    run.report.note = notes.append
    part = ReestimateNorm()
    part.finish(run, None)
    assert part.epochs(run) == 0 and "no batch norm" in notes[0]
    with pytest.raises(RequestError, match="samples: got 1"):
        ReestimateNorm(1)
