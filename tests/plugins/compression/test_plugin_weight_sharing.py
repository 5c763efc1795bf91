"""Weight sharing: k-means and Huffman against references, centroids that train with summed gradients."""

import copy
import math

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from torch import nn
from train.train_fakes import data, make_run

from bigopt.measure import Session, export_onnx
from bigopt.pipeline.driver import compress
from bigopt.pipeline.notes import Collected
from bigopt.train import Fitter
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.network import Network
from bigopt.vocabulary.settings import Optimizer, Recover, Schedule, Scheduler, StepOptions
from bigopt_plugins.compression.magnitude_pruning import MagnitudePruning
from bigopt_plugins.compression.weight_sharing._entropy import code_lengths, size_of
from bigopt_plugins.compression.weight_sharing._kmeans import Codebook, cluster, codebook_of
from bigopt_plugins.compression.weight_sharing.plugin import WeightSharing


def net() -> Network:
    torch.manual_seed(0)
    return Network(
        nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(16 * 36, 3),
        )
    )  # fmt: skip


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path, net(), data(image=True))


def values(model) -> dict[str, int]:
    return {n: len(p.unique()) for n, p in model.named_parameters() if p.ndim > 1}


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_k_means_is_the_one_of_scikit_learn():
    weight = torch.randn(30, 20, generator=generator())
    book = cluster(weight, 8, "linear", generator())
    first = np.linspace(weight.min(), weight.max(), 8).reshape(-1, 1)
    reference = KMeans(8, init=first, n_init=1, tol=0, max_iter=100).fit(weight.reshape(-1, 1).double().numpy())
    np.testing.assert_allclose(book.values[1:].numpy(), np.sort(reference.cluster_centers_[:, 0]), atol=1e-5)
    assert float(((book.decoded() - weight) ** 2).sum()) == pytest.approx(reference.inertia_, rel=1e-5)


@pytest.mark.parametrize("start", ["linear", "density", "random"])
def test_every_start_gives_means_of_nearest_weights_and_keeps_zero(start):
    weight = torch.randn(40, 25, generator=generator())
    weight[weight.abs() < 0.5] = 0
    book = cluster(weight, 16, start, generator())
    assert len(book.values) <= 16 and book.values[0] == 0
    assert torch.equal(book.codes == 0, weight == 0)
    for code in range(1, len(book.values)):
        torch.testing.assert_close(book.values[code], weight[book.codes == code].mean(), atol=1e-5, rtol=1e-5)
    alive = weight != 0
    nearest = (weight[alive][:, None] - book.values[1:]).abs().argmin(1) + 1
    assert (nearest == book.codes[alive]).float().mean() > 0.999


def test_huffman_lengths_are_optimal():
    counts = [45, 13, 12, 16, 9, 5, 0]  # the textbook's example (Cormen et al., 16.3): 224 bits
    lengths = code_lengths(counts)
    assert lengths == [1, 3, 3, 3, 4, 4, 0]
    assert sum(c * n for c, n in zip(counts, lengths, strict=True)) == 224
    assert sum(2.0**-n for n in lengths if n) == 1
    assert code_lengths([0, 7]) == [0, 1]


def test_dense_size_is_huffman_codes_centroids_and_lengths():
    codes = torch.tensor([1] * 45 + [2] * 13 + [3] * 12 + [4] * 16 + [5] * 9 + [6] * 5)
    size = size_of(Codebook(torch.arange(7.0), codes))
    assert (size.huffman_bits, size.codebook_bits, size.table_bits, size.layout) == (224, 6 * 32, 6 * 8, "dense")
    assert size.bits == 224 + 192 + 48 and size.index_bits == 300
    assert size.entropy <= 224 / 100 < size.entropy + 1


def test_sparse_size_is_that_of_a_code_that_can_be_decoded():
    codes = torch.zeros(4000, dtype=torch.int64)
    codes[torch.randperm(4000, generator=generator())[:60]] = torch.randint(1, 4, (60,), generator=generator())
    size = size_of(Codebook(torch.arange(4.0), codes))
    assert size.layout == "sparse"
    gaps, stored, zeros = [], [], 0  # encode one by one, as the paper's figure 2 does
    for code in codes.tolist():
        if code or zeros == 31:
            gaps.append(zeros)
            stored.append(code)
            zeros = 0
        else:
            zeros += 1
    while stored and stored[-1] == 0:
        gaps.pop(), stored.pop()
    bits = 0
    for stream in (gaps, stored):
        counts = np.bincount(stream).tolist()
        bits += sum(c * n for c, n in zip(counts, code_lengths(counts), strict=True))
    assert size.huffman_bits == bits < 4000
    decoded = torch.zeros(4000, dtype=torch.int64)
    place = -1
    for gap, code in zip(gaps, stored, strict=True):
        place += gap + 1
        decoded[place] = code
    assert torch.equal(decoded, codes)


def test_a_step_moves_each_centroid_by_its_summed_gradient(tmp_path):
    lr = 1e-3
    run = make_run(
        tmp_path, net(), data(image=True), optimizer=Optimizer("sgd", lr, 0.0, momentum=0.0),
        scheduler=Scheduler("constant"), batch_size=64,
    )  # fmt: skip
    part = WeightSharing(3)
    part.apply(run, part.strength())
    before = copy.deepcopy(run.model)
    before.train()
    run.task.loss(before(run.data.train.x), run.data.train.y).backward()
    Fitter(tmp_path)(run, 1, parts=[part])
    for place in (0, 3, 6):
        old, new = before.net[place].weight, run.model.net[place].weight
        book = codebook_of(old, 8)
        for code in range(1, len(book.values)):
            same = book.codes == code
            assert len(new[same].unique()) == 1
            expected = old[same][0] - lr * old.grad[same].sum()
            torch.testing.assert_close(new[same][0], expected, atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize(("optimizer", "ema"), [("adamw", None), ("adamw", 0.5)])
def test_recovery_and_later_steps_keep_the_values_shared(tmp_path, optimizer, ema):
    run = make_run(tmp_path, net(), data(image=True), optimizer=Optimizer(optimizer, lr=0.01), ema=ema)
    fit, names = Fitter(tmp_path), list(run.model.state_dict())
    run.report = report = Collected()
    compress(run, "magnitude_pruning", MagnitudePruning(0.7), StepOptions(recover=Recover(epochs=0)), fit)
    zeros = {n: p == 0 for n, p in run.model.named_parameters() if p.ndim > 1}
    before = run.model.net[3].weight.detach().clone()
    compress(run, "weight_sharing", WeightSharing(3, conv_bits=4), StepOptions(recover=Recover(epochs=2)), fit)
    assert all(got <= most for got, most in zip(values(run.model).values(), (16, 16, 8), strict=True))
    assert all(torch.equal(dict(run.model.named_parameters())[n] == 0, z) for n, z in zeros.items())
    assert not torch.equal(run.model.net[3].weight.unique(), before.unique())
    assert list(run.model.state_dict()) == names
    assert not [n for n, _ in run.model.named_buffers() if n not in names]
    shared = values(run.model)
    fit(run, 1, name="a later step")
    assert values(run.model) == shared
    assert report.values["entropy_coded"]["ratio"] > 5


def test_the_report_counts_what_is_in_the_model(run, tmp_path):
    run.report = report = Collected()
    part = WeightSharing(4)
    assert part.strength() == 1 - 4 / 32
    compress(run, "weight_sharing", part, StepOptions(recover=Recover(epochs=1)), Fitter(tmp_path))
    coded = report.values["entropy_coded"]
    weights = [p for p in run.model.parameters() if p.ndim > 1]
    sizes = [size_of(codebook_of(p, 17)) for p in weights]
    assert coded["huffman_bits"] == sum(s.huffman_bits for s in sizes)
    rest = sum(t.numel() for t in run.model.state_dict().values() if t.is_floating_point())
    rest -= sum(p.numel() for p in weights)
    assert coded["rest_bits"] == 32 * rest
    assert coded["bytes"] == math.ceil((32 * rest + sum(s.bits for s in sizes)) / 8)
    for p, s in zip(weights, sizes, strict=True):
        shares = np.unique(p.detach().numpy(), return_counts=True)[1] / p.numel()
        assert s.entropy == pytest.approx(-(shares * np.log2(shares)).sum())
        assert s.entropy * p.numel() <= s.huffman_bits < (s.entropy + 1) * p.numel()
    assert coded["dense_bytes"] == 4 * (rest + sum(p.numel() for p in weights))


def test_a_layer_that_would_not_become_smaller_is_named_and_left(run):
    run.report = report = Collected()
    before = run.model.net[0].weight.detach().clone()
    WeightSharing(8).apply(run, 1 - 8 / 32)
    assert torch.equal(run.model.net[0].weight, before)
    assert report.notes == ["net.0 was left as it was: a codebook of 8 bits would not make its 72 weights smaller"]
    assert 200 < values(run.model)["net.3.weight"] <= 256


def test_rounds_reach_the_bits_and_one_layer_can_be_scanned(run, tmp_path):
    options = StepOptions(recover=Recover(epochs=0), schedule=Schedule("iterative", 5))
    compress(run, "weight_sharing", WeightSharing(2), options, Fitter(tmp_path))
    assert values(run.model) == {"net.0.weight": 4, "net.3.weight": 4, "net.6.weight": 4}
    run.model = net()
    part = WeightSharing()
    assert part.layers(run) == ["net.0", "net.3", "net.6"]
    part.apply(run, part.strengths[0], only="net.3")
    assert values(run.model)["net.0.weight"] == 72
    assert 200 < values(run.model)["net.3.weight"] <= 256
    assert values(run.model)["net.6.weight"] == 1728


def test_same_seed_same_values_and_the_file_answers_as_the_model(run, tmp_path):
    other = run.fork()
    for each in (run, other):
        WeightSharing(3, start="random").apply(each, 1 - 3 / 32)
    x = run.data.val.x
    assert all(torch.equal(a, b) for a, b in zip(run.model.parameters(), other.model.parameters(), strict=True))
    file = export_onnx(run.model, x, tmp_path / "model.onnx")
    with torch.no_grad():
        assert (Session(file).run(x) - run.model.eval()(x)).abs().max() < 1e-4


@pytest.mark.parametrize("arguments", [{"bits": 0}, {"bits": 9}, {"conv_bits": 12}, {"start": "luck"}])
def test_arguments_out_of_range(arguments):
    with pytest.raises(RequestError, match=next(iter(arguments))):
        WeightSharing(**arguments)
