"""Equalisation, SmoothQuant, GPTQ, bias correction and mixed precision, through the plugin."""

import copy

import pytest
import torch
from gated_nets import small
from pipeline.small_nets import trained
from torch import nn
from train.train_fakes import CLASSES, data, make_run

from bigopt.pipeline import driver
from bigopt.pipeline.notes import Collected
from bigopt.vocabulary.data import Data, Schema, TensorSplit
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.run import History
from bigopt.vocabulary.settings import Recover, StepOptions
from bigopt_plugins.compression.quantization._mixed import Mixed
from bigopt_plugins.compression.quantization.plugin import Quantization


def no_fit(run, epochs=None, *, lr=None, name="fit", parts=None, share=False):
    return History(name)


def texts() -> Data:
    generator = torch.Generator().manual_seed(0)
    splits = [
        TensorSplit(torch.randint(1, 30, (rows, 8), generator=generator), torch.arange(rows) % CLASSES)
        for rows in (128, 64)
    ]
    schema = Schema("classification", "text", (8,), CLASSES, vocab_size=30)
    return Data("texts", schema, *splits, None, fingerprint="t" * 64)


def quantized(tmp_path, model, dataset, **arguments):
    """Logits of the rounded graph on validation, their error against the float model's, and the run."""
    run = make_run(tmp_path, copy.deepcopy(model), dataset)
    run.report = Collected()
    x = dataset.val.x
    with torch.no_grad():
        wanted = model(x)
        driver.compress(run, "quantization", Quantization(**arguments), StepOptions(recover=Recover(epochs=0)), no_fit)
        got = run.model(x)
    return got, (got - wanted).norm().item() / wanted.norm().item(), run


def unbalanced_mobilenet():
    """Folded weights of very different ranges, as trained depthwise layers have them (Nagel et al. 2019, figure 2)."""
    model = trained("mobilenet", num_classes=CLASSES)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, nn.BatchNorm2d) and ("depthwise" in name or "expand" in name):
                module.weight.copy_(torch.exp2(6 * torch.rand(len(module.weight), generator=generator) - 4))
                module.bias.mul_(module.weight)
    return model.eval()


def test_mobilenet_per_tensor_is_better_equalised(tmp_path):
    model, dataset = unbalanced_mobilenet(), data(train=128, image=True)
    how = {"granularity": "per_tensor", "reduce_range": False}
    _, plain, _ = quantized(tmp_path, model, dataset, **how)
    _, equal, run = quantized(tmp_path, model, dataset, equalise=True, **how)
    assert equal < 0.7 * plain
    assert any("chains of layers were equalised" in note for note in run.report.notes)
    _, corrected, _ = quantized(tmp_path, model, dataset, bias_correction=True, **how)
    assert corrected < plain


@pytest.mark.parametrize("topology", ["vit", "bert"])
def test_transformers_at_4_bits_are_better_by_gptq(tmp_path, topology):
    model, dataset = small(topology), texts() if topology == "bert" else data(train=128, image=True)
    how = {"bits": 4, "mode": "weight_only"}
    _, nearest, _ = quantized(tmp_path, model, dataset, **how)
    _, solved, _ = quantized(tmp_path, model, dataset, rounding="gptq", **how)
    assert 0 < solved < 0.9 * nearest


def test_gptq_by_group_of_weights_and_on_convolutions(tmp_path):
    model, dataset = small("residual"), data(train=128, image=True)
    for how in ({"granularity": "per_group", "group_size": 8}, {"symmetric": False}):
        how |= {"bits": 3, "mode": "weight_only"}
        _, nearest, _ = quantized(tmp_path, model, dataset, **how)
        _, solved, run = quantized(tmp_path, model, dataset, rounding="gptq", **how)
        assert 0 < solved < nearest
    assert {row["bits"] for row in run.report.tables["quantization"]} == {3}


def test_bias_correction_brings_the_mean_logits_back(tmp_path):
    model, dataset = small("depthwise"), data(train=256, val=256, image=True)
    dataset.val = dataset.train  # the means that are corrected
    with torch.no_grad():
        wanted = model(dataset.val.x).mean(0)
    how = {"bits": 3, "mode": "weight_only"}
    shift = {}
    for corrected in (False, True):
        got, _, _ = quantized(tmp_path, model, dataset, bias_correction=corrected, **how)
        shift[corrected] = (got.mean(0) - wanted).abs().max()
    assert shift[True] < 1e-4 < shift[False]


def test_smoothquant_with_outliers_in_activations(tmp_path):
    model, dataset = small("vit"), data(train=128, image=True)
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, nn.LayerNorm) and ("before" in name or "after" in name):
                module.weight[:2] *= 60
            if isinstance(module, nn.Linear) and ("query" in name or "key" in name or "value" in name):
                module.weight[:, :2] /= 60
    how = {"activation_bits": 6, "calibration": "minmax", "reduce_range": True}  # the same on every processor
    _, plain, _ = quantized(tmp_path, model, dataset, **how)
    _, smoothed, _ = quantized(tmp_path, model, dataset, smoothquant=0.5, **how)
    assert 0 < smoothed < 0.8 * plain


@pytest.mark.parametrize(
    "limits", [{"max_bytes": 1300}, {"max_drop": 0.03}], ids=["max_bytes", "max_drop"]
)  # fmt: skip
def test_mixed_precision_from_the_scan(tmp_path, monkeypatch, limits):
    model, dataset = small("sequential"), data(train=64, image=True)
    weights = {name: m.weight.numel() for name, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}

    def score(_run, trial):
        """Each layer alone costs 0.01 at 4 bits, the first one 0.2; nothing at 8."""
        found = {slash.replace("/", "."): q.grid.bits for slash, q in getattr(trial, "weights", {}).items()}
        return 0.9 - sum((0.2 if name == "net.net.0" else 0.01) * (bits == 4) for name, bits in found.items())

    monkeypatch.setattr(driver, "score", score)
    part = {"mode": "weight_only", "mixed": Mixed(bits=(8, 4), **limits)}
    _, _, run = quantized(tmp_path, model, dataset, **part)
    chosen = {row["layer"]: row["bits"] for row in run.report.tables["quantization"]}
    size = sum(row["bytes"] for row in run.report.tables["quantization"])
    assert list(chosen) == list(weights) and chosen["net.net.0"] == 8
    table = {(row["layer"], row["bits"]): row for row in run.report.tables["mixed_precision"]}
    assert len(table) == 2 * len(weights) and table["net.net.0", 4]["drop"] == pytest.approx(0.2)
    assert sum(row["bytes"] for row in table.values() if row["chosen"]) == size
    narrow = [name for name, bits in chosen.items() if bits == 4]
    largest = sorted(weights, key=lambda name: -weights[name])
    if "max_bytes" in limits:  # 2178 bytes in all; two layers of equal loss save 540 and 432
        assert narrow == sorted(largest[:2]) and size == 1206
    else:  # 0.01 each, for all but the first layer
        assert narrow == list(weights)[1:]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"smoothquant": 1.5}, "smoothquant: got 1.5"),
        ({"rounding": "up"}, "rounding: got 'up'"),
        ({"rounding": "gptq", "mode": "qat"}, "rounding: got 'gptq'"),
        ({"bias_correction": True, "mode": "qat"}, "bias_correction: got true"),
        ({"mixed": Mixed()}, "mixed: got neither max_bytes nor max_drop"),
        ({"mixed": Mixed(bits=(9,), max_bytes=1)}, r"mixed.bits: got \[9\]"),
    ],
    ids=["smoothquant", "rounding", "rounding_qat", "bias_correction_qat", "no_limit", "bits"],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(RequestError, match=message):
        Quantization(**arguments)
