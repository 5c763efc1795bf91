"""Structured sparsity: the paper's penalty, its proximal step, prior knowledge, and removal that changes nothing."""

import copy
import math

import pytest
import torch
from shaken import shake_norms
from torch import nn
from train.train_fakes import data, make_run, same, weights

from bigopt.pipeline import driver
from bigopt.pipeline.notes import Collected
from bigopt.train import Fitter
from bigopt.vocabulary.batch import Batch, Output
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.network import Network
from bigopt.vocabulary.part import Part
from bigopt.vocabulary.settings import Optimizer, Recover, StepOptions
from bigopt_plugins.compression._channels import find_units, norms_behind
from bigopt_plugins.compression.structured_sparsity._branches import find_branches
from bigopt_plugins.compression.structured_sparsity._kernels import crop, croppable
from bigopt_plugins.compression.structured_sparsity._penalty import (
    Channels,
    Filters,
    Shapes,
    magnitudes,
    penalty,
    shrink,
)
from bigopt_plugins.compression.structured_sparsity._rules import Rule
from bigopt_plugins.compression.structured_sparsity._view import View
from bigopt_plugins.compression.structured_sparsity.plugin import StructuredSparsity
from bigopt_plugins.models.inception import Inception
from bigopt_plugins.models.mobilenet import MobileNet
from bigopt_plugins.models.resnet import ResNet


def plain():
    """Without batch norm: the formulas can be written down from the weights."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(216, 3),
    )


def normed():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 3),
    )


def network(net, seed=0):
    torch.manual_seed(seed)
    shake_norms(net)
    return Network(net).eval()


def view_of(model, tmp_path, kinds, rules=(), **options):
    run = make_run(tmp_path, model, data(image=True))
    run.options = StepOptions(**options)
    return View.of(run, model, kinds, rules), run


def test_the_penalty_of_filters_channels_and_shapes_is_the_papers(tmp_path):
    model = network(plain())
    view, _ = view_of(model, tmp_path, ("filters", "channels", "shapes"))
    w, b = model.net[2].weight.detach().double(), model.net[2].bias.detach().double()
    filters = Filters(view.bundles[1], view.norms)
    channels = Channels(view.bundles[0], view.norms)  # columns of the second layer
    shapes = Shapes("net.2", model.net[2], view.norms)
    expected_filters = sum(math.sqrt(37) * math.sqrt(w[n].square().sum() + b[n] ** 2) for n in range(6))
    expected_channels = sum(math.sqrt(54) * w[:, c].norm().item() for c in range(4))
    expected_shapes = sum(
        math.sqrt(6) * w[:, c, i, j].norm().item() for c in range(4) for i in range(3) for j in range(3)
    )
    assert penalty([filters]).item() == pytest.approx(expected_filters, rel=1e-5)
    assert penalty([channels]).item() == pytest.approx(expected_channels, rel=1e-5)
    assert penalty([shapes]).item() == pytest.approx(expected_shapes, rel=1e-5)


def test_norms_are_those_of_the_layer_with_its_batch_norm_folded_in(tmp_path):
    model = network(normed())
    view, _ = view_of(model, tmp_path, ("filters",))
    assert view.norms == {"net.0": model.net[1]}
    folded = torch.nn.utils.fuse_conv_bn_eval(model.net[0], model.net[1])
    expected = folded.weight.flatten(1).square().sum(1) + folded.bias.square()
    got = Filters(view.bundles[0], view.norms).squares()
    torch.testing.assert_close(got, expected)


def test_the_proximal_step_is_group_soft_thresholding_also_through_a_batch_norm(tmp_path):
    model = network(normed())
    view, _ = view_of(model, tmp_path, ("filters",))
    family = Filters(view.bundles[0], view.norms)
    before = torch.nn.utils.fuse_conv_bn_eval(model.net[0], model.net[1])
    norms = (before.weight.flatten(1).square().sum(1) + before.bias.square()).sqrt().detach()
    threshold = norms.median().item() / math.sqrt(10)
    shrink([family], [threshold])
    after = torch.nn.utils.fuse_conv_bn_eval(model.net[0], model.net[1])
    factor = (1 - threshold * math.sqrt(10) / norms).clamp_min(0)
    assert (factor == 0).sum() == 2
    torch.testing.assert_close(after.weight, before.weight * factor.reshape(-1, 1, 1, 1))
    torch.testing.assert_close(after.bias, before.bias * factor)
    # it minimises ½‖u - w‖² + threshold·√10·‖u‖ in the folded weights
    w = torch.cat([before.weight.flatten(1), before.bias[:, None]], 1).detach()
    u = (w * factor[:, None]).requires_grad_()
    objective = 0.5 * (u - w).square().sum(1) + threshold * math.sqrt(10) * u.norm(dim=1)
    alive = factor > 0
    (gradient,) = torch.autograd.grad(objective[alive].sum(), u)
    assert gradient[alive].abs().max() < 1e-5


def test_the_step_leaves_the_strongest_groups_alone_once_enough_are_at_zero(tmp_path):
    model = network(plain())
    view, _ = view_of(model, tmp_path, ("filters",))
    family = Filters(view.bundles[1], view.norms)
    before = magnitudes(family)
    strongest = before.topk(2).indices.sort().values
    shrink([family], [1e6], most=0.7)  # 4 of 6
    after = magnitudes(family)
    assert after.nonzero().flatten().tolist() == strongest.tolist()
    torch.testing.assert_close(after[strongest], before[strongest])


def test_reweighting_takes_more_off_the_weak_and_less_off_the_strong(tmp_path):
    model = network(plain())
    with torch.no_grad():
        model.net[2].weight[0] *= 0.2
        model.net[2].bias[0] *= 0.2
    view, _ = view_of(model, tmp_path, ("filters",))
    family = Filters(view.bundles[1], view.norms)
    before = magnitudes(family)
    mean = before.mean().item()
    shrink([family], [0.05 * mean], references=[mean])
    expected = before - 0.05 * mean * (mean / (2 * before)).clamp_max(10)
    torch.testing.assert_close(magnitudes(family), expected)
    assert expected[0] / before[0] < 0.6 and (expected[1:] / before[1:]).min() > 0.95


def test_the_subgradient_solver_reaches_exactly_what_makes_the_units(tmp_path):
    model = network(normed())
    run = make_run(tmp_path, model, data(image=True))
    part = StructuredSparsity(solver="subgradient", penalty=0.5)
    assert part.loss(run, Batch(torch.zeros(1), None, torch.zeros(1)), Output(torch.zeros(1))) == {}
    part._training = View.of(run, model, part.groups, ()).families(part.groups, model)
    part._weights = [0.5, 0.25]
    term = part.loss(run, Batch(torch.zeros(1), None, torch.zeros(1)), Output(torch.zeros(1)))["group_lasso"]
    first, second = (penalty([family]).item() for family in part._training)
    assert term.item() == pytest.approx(0.5 * first + 0.25 * second)
    term.backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert reached == {"net.0.weight", "net.0.bias", "net.1.weight", "net.1.bias", "net.3.weight", "net.3.bias"}


def nets():
    transformers = pytest.importorskip("transformers")
    sizes = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24)
    common = sizes | dict(num_labels=3, initializer_range=0.3)
    vit = transformers.ViTConfig(image_size=8, patch_size=4, num_channels=1, **common)
    bert = transformers.BertConfig(vocab_size=20, max_position_embeddings=12, **common)
    vit._attn_implementation = bert._attn_implementation = "eager"
    return {
        "sequential": lambda: network(normed()),
        "residual": lambda: network(ResNet(in_channels=1, num_classes=3, depth=(2, 2), width=4)),
        "concat": lambda: network(Inception(in_channels=1, image_size=8, num_classes=3, modules=2, width=16)),
        "depthwise": lambda: network(MobileNet(in_channels=1, num_classes=3, width=0.25)),
        "vit": lambda: network(transformers.ViTForImageClassification(vit)),
        "bert": lambda: Network(transformers.BertForSequenceClassification(bert), pad_id=0).eval(),
    }


def example_of(kind):
    torch.manual_seed(1)
    return torch.randint(1, 20, (4, 10)) if kind == "bert" else torch.rand(4, 1, 8, 8)


@pytest.mark.parametrize("kind", ["sequential", "residual", "concat", "depthwise", "vit", "bert"])
def test_silent_units_are_absent_units(kind):
    from bigopt.surgery import Groups

    model, x = nets()[kind](), example_of(kind)
    silenced, removed = copy.deepcopy(model), copy.deepcopy(model)
    found, _ = find_units(silenced, Groups(silenced, x))
    for units in found:
        dead = torch.zeros(units.count, dtype=torch.bool)
        dead[[0, units.count - 1]] = units.count > 2
        units.silence(dead)
    groups = Groups(removed, x)
    for group in groups:
        if group.name in {units.name for units in found} and group.units > 2:
            groups.remove(group, [0, group.units - 1])
    with torch.no_grad():
        torch.testing.assert_close(removed(x), silenced(x), atol=1e-5, rtol=0)
        assert (removed(x) - model(x)).abs().max() > 1e-5


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("sequential", []),
        ("concat", []),
        ("residual", [f"net.stages.{s}.{b}.body" for s in (0, 1) for b in (0, 1)]),
        ("depthwise", [f"net.blocks.{b}.body" for b in (0, 2, 4, 6)]),
        ("vit", ["net.vit.layers.0.attention", "net.vit.layers.0.mlp", "net.vit.layers.1.mlp"]),
        ("bert", [f"net.bert.encoder.layer.{i}.{o}.dense" for i in (0, 1) for o in ("attention.output", "output")]),
    ],
)
def test_branches_are_what_a_shortcut_goes_around(kind, expected):
    model, x = nets()[kind](), example_of(kind)
    before, modes = weights(model), [m.training for m in model.modules()]
    found = find_branches(model, x)
    assert [branch.name for branch in found] == expected
    assert same(weights(model), before) and [m.training for m in model.modules()] == modes
    if not found:
        return
    # the branch's folded layers at zero give what its removal gives
    norms = norms_behind(model, x)
    zeroed, removed = copy.deepcopy(model), copy.deepcopy(model)
    branch = found[0]
    names = {module: name for name, module in model.named_modules()}
    with torch.no_grad():
        for layer in branch.layers(zeroed):
            target = zeroed.get_submodule(names[norms[layer]] if layer in norms else layer)
            target.weight.zero_()
            target.bias.zero_()
    branch.remove(removed)
    with torch.no_grad():
        torch.testing.assert_close(removed(x), zeroed(x), atol=1e-5, rtol=0)
        assert (removed(x) - model(x)).abs().max() > 1e-4
    gone = sum(p.numel() for p in model.parameters()) - sum(p.numel() for p in removed.parameters())
    assert gone >= sum(layer.weight.numel() for layer in branch.layers(model).values())


def test_cropping_a_kernel_keeps_the_output():
    torch.manual_seed(0)
    layer = nn.Conv2d(2, 3, 5, stride=2, padding=2, dilation=1)
    with torch.no_grad():
        layer.weight[:, :, 0] = 0
        layer.weight[:, :, -1] = 0
        layer.weight[..., 0] = 0  # the other side is alive, so the width stays
    x = torch.rand(2, 2, 9, 9)
    before = layer(x)
    assert croppable(layer) == (1, 0)
    crop(layer, croppable(layer))
    assert (layer.kernel_size, layer.padding) == ((3, 5), (1, 2))
    torch.testing.assert_close(layer(x), before)
    assert croppable(nn.Conv2d(1, 1, 3)) == (0, 0)  # without padding a smaller kernel would give a larger output


def test_training_makes_groups_vanish_and_removes_them(tmp_path):
    run = make_run(tmp_path, network(normed()), data(image=True), optimizer=Optimizer(lr=0.05))
    run.report = Collected()
    part = StructuredSparsity(penalty=3.0, epochs=3, groups=("filters", "channels"))
    fit = Fitter(tmp_path)
    outcome = driver.compress(run, "structured_sparsity", part, StepOptions(recover=Recover(epochs=1)), fit)
    rows = {row["layer"]: row for row in run.report.tables["structured_sparsity"]}
    assert rows["net.0"]["units"] == 4 and rows["net.3"]["units"] == 6
    assert run.model.net[0].out_channels == rows["net.0"]["left"] < 4
    assert run.model.net[3].in_channels == rows["net.0"]["left"]
    assert outcome.epochs == 4  # the control is given the epochs with the penalty, too
    assert run.monitor.metric == "val/accuracy"
    zero = [epoch["structured_sparsity/zero"] for epoch in run.history[0].epochs]
    assert zero[-1] > 0 and run.history[0].best_epoch == 3


def test_in_all_the_penalty_takes_that_multiple_of_the_mean_off(tmp_path):
    from bigopt_plugins.compression._rates import total_rate

    sgd = Optimizer(name="sgd", lr=1.0, weight_decay=0.0)
    run = make_run(tmp_path, network(plain()), data(image=True), parts=[NoLoss()], optimizer=sgd)
    start = strengths(run.model, tmp_path)
    StructuredSparsity(penalty=0.5, epochs=3, ratio=0.0, reweighted=False).prepare(run, Fitter(tmp_path))
    for before, after in zip(start, strengths(run.model, tmp_path), strict=True):
        torch.testing.assert_close(after, before - 0.5 * before.mean(), atol=1e-5, rtol=1e-4)
    assert total_rate(run, 3, 1.0) == pytest.approx(sum((1 + math.cos(math.pi * t / 12)) / 2 for t in range(12)))


class NoLoss(Part):
    """Nothing holds the weights up."""

    def loss(self, run, batch, output):
        return {"task": 0 * output.logits.sum()}


def strengths(model, folder):
    view, _ = view_of(model, folder, ("filters",))
    return [magnitudes(family) for family in view.families(("filters",), model)]


def test_the_same_seed_gives_the_same_result_and_a_resumed_run_too(tmp_path):
    def compressed(folder):
        run = make_run(folder, network(normed()), data(image=True), optimizer=Optimizer(lr=0.05))
        part = StructuredSparsity(penalty=1.5, epochs=2)
        driver.compress(run, "s", part, StepOptions(recover=Recover(epochs=1)), Fitter(folder))
        return run.model

    first, again = compressed(tmp_path / "a"), compressed(tmp_path / "b")
    resumed = compressed(tmp_path / "a")
    assert first.changes == again.changes == resumed.changes
    assert same(weights(first), weights(again)) and same(weights(first), weights(resumed))


def test_the_recovery_after_units_were_removed_has_the_full_rate(tmp_path):
    run = make_run(tmp_path, network(normed()), data(image=True), optimizer=Optimizer(lr=0.05))
    assert driver.recovery_lr(run, StructuredSparsity(), StepOptions()) == 0.05
    assert driver.recovery_lr(run, StructuredSparsity(), StepOptions(recover=Recover(lr=0.1))) == pytest.approx(0.005)


def test_a_training_too_short_to_make_anything_vanish_says_so(tmp_path):
    run = make_run(tmp_path, network(normed()), data(image=True))
    run.report = Collected()
    StructuredSparsity(epochs=1).prepare(run, Fitter(tmp_path))
    assert run.model.changes == []
    assert any("nothing vanished in 1 epochs under penalty 1" in note for note in run.report.notes)


def test_an_average_of_the_weights_does_not_fill_the_zeros(tmp_path):
    run = make_run(tmp_path, network(normed()), data(image=True), optimizer=Optimizer(lr=0.05), ema=0.99)
    part = StructuredSparsity(penalty=1.5, epochs=2)
    driver.compress(run, "s", part, StepOptions(recover=Recover(epochs=0)), Fitter(tmp_path))
    assert run.model.net[0].out_channels < 4


def test_vanished_units_branches_and_rings_go_and_the_outputs_stay(tmp_path):
    model = network(ResNet(in_channels=1, num_classes=3, depth=(2, 2), width=4))
    run = make_run(tmp_path, model, data(image=True))
    run.report = Collected()
    x = torch.rand(4, 1, 6, 6)
    with torch.no_grad():
        for conv in model.net.stages[0][1].body:  # a whole branch
            conv.bn.weight.zero_()
            conv.bn.bias.zero_()
        inner = model.net.stages[0][0].body[0]  # two of its filters
        inner.bn.weight[[1, 2]] = 0
        inner.bn.bias[[1, 2]] = 0
        kernel = model.net.stages[1][1].body[0].conv.weight  # all but the middle of a kernel
        middle = kernel[:, :, 1, 1].clone()
        kernel.zero_()
        kernel[:, :, 1, 1] = middle
        model.net.stem.conv.weight[:, :, 0, 0] = 0  # one position only: no ring
    expected = model(x)
    part = StructuredSparsity(penalty=0.0, groups=("filters", "shapes", "depth"))
    driver.compress(run, "s", part, StepOptions(recover=Recover(epochs=0)), Fitter(tmp_path))
    net = run.model.net
    torch.testing.assert_close(run.model.eval()(x), expected, atol=1e-5, rtol=0)
    assert sum(p.numel() for p in net.stages[0][1].parameters()) == 0
    assert net.stages[0][0].body[0].conv.out_channels == 2
    assert net.stages[1][1].body[0].conv.kernel_size == (1, 1)
    assert run.report.values["removed_branches"] == ["net.stages.0.1.body"]
    assert run.report.values["cropped_kernels"] == ["net.stages.1.1.body.0.conv"]
    assert not [name for name, _ in run.model.named_buffers() if name.endswith("_kept")]  # a plain model
    driver_part = run.parts[-1]
    assert driver_part.parameters == ("net.stem.conv.weight",)  # whose zero outlasts later steps


def test_the_structure_is_rebuilt_from_its_file_and_exported(tmp_path):
    from bigopt.measure import Session, export_onnx
    from bigopt.pipeline.structure import load_structure, save_structure

    def dense(spec=None):
        return network(ResNet(in_channels=1, num_classes=3, depth=(2, 2), width=4))

    run = make_run(tmp_path, dense(), data(image=True))
    with torch.no_grad():
        run.model.net.stages[1][1].body[0].conv.weight[:, :, [0, 2]] = 0
    rules = (Rule("net.stages.0.1.body", "remove"), Rule("net.stages.0.0.body.0.conv", "remove", units=(0, 3)))
    part = StructuredSparsity(penalty=0.0, groups=("shapes",), rules=rules)
    driver.compress(run, "s", part, StepOptions(recover=Recover(epochs=0)), Fitter(tmp_path))
    assert [entry["op"] for entry in run.model.changes] == ["remove_branch", "prune", "crop_kernel"]
    save_structure(run.model, {"name": "resnet"}, run.model.changes, tmp_path)
    rebuilt = load_structure(tmp_path, dense)
    x = torch.rand(4, 1, 6, 6)
    expected = run.model.eval()(x)
    assert torch.equal(rebuilt.eval()(x), expected)
    path = export_onnx(run.model, x, tmp_path / "model.onnx")
    torch.testing.assert_close(Session(path).run(x), expected.detach(), atol=1e-4, rtol=0)


def test_a_ratio_removes_the_weakest_of_every_layer_without_training(tmp_path):
    run = make_run(tmp_path, network(plain()), data(image=True))
    with torch.no_grad():
        run.model.net[0].weight[[1, 3]] *= 1e-3
        run.model.net[0].bias[[1, 3]] = 0
        run.model.net[2].weight[[0, 2, 5]] *= 1e-3
        run.model.net[2].bias[[0, 2, 5]] = 0
    part = StructuredSparsity(ratio=0.5)
    assert part.layers(run) == ["net.0", "net.2"] and part.strength() == 0.5
    part.apply(run, 0.5)
    assert [entry["channels"] for entry in run.model.changes] == [[1, 3], [0, 2, 5]]
    run.model = network(plain())
    part.apply(run, 0.5, only="net.2")
    assert (run.model.net[0].out_channels, run.model.net[2].out_channels) == (4, 3)


def test_rounds_of_kernel_shapes_compose(tmp_path):
    run = make_run(tmp_path, network(plain()), data(image=True))
    part = StructuredSparsity(ratio=0.5, groups=("shapes",))
    for _ in range(2):
        part.apply(run, 0.5)
    weight = run.model.net[2].weight.detach()
    assert int((weight == 0).all(0).sum()) == 18 + 9  # of 36 positions half, then half of the rest
    assert len(part.callbacks(run)) == 1


def test_rules_keep_join_and_ask_for_ratios(tmp_path):
    model = network(Inception(in_channels=1, image_size=6, num_classes=3, modules=1, width=16))
    branches = [model.net.blocks[0].branch5[0].conv, model.net.blocks[0].branch_pool[1].conv]
    assert [conv.out_channels for conv in branches] == [2, 2]
    rules = (
        Rule("net.stem.*", "keep"),
        Rule("*.branch5.0.conv", "together"),
        Rule("*.branch_pool.1.conv", "ratio", ratio=0.5),
        Rule("*.branch1.conv", "ratio", ratio=0.5),
    )
    rules = (*rules[:1], Rule("*.branch[5_]*0.conv", "together"), *rules[2:])
    view, _ = view_of(model, tmp_path, ("filters",), rules)
    assert "net.stem.conv" not in [units.name for bundle in view.bundles for units in bundle]
    run = make_run(tmp_path, model, data(image=True))
    part = StructuredSparsity(penalty=0.0, rules=rules)
    driver.compress(run, "s", part, StepOptions(recover=Recover(epochs=0)), Fitter(tmp_path))
    block = run.model.net.blocks[0]
    assert run.model.net.stem.conv.out_channels == 16
    assert (block.branch1.conv.out_channels, block.branch_pool[1].conv.out_channels) == (2, 1)


def test_what_is_joined_vanishes_together(tmp_path):
    def pair():
        model = network(
            nn.Sequential(nn.Conv2d(1, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.Flatten(), nn.Linear(144, 3))
        )
        with torch.no_grad():
            model.net[0].weight[1:3] = 0
            model.net[0].bias[1:3] = 0
            model.net[2].weight[2:4] = 0
            model.net[2].bias[2:4] = 0
        return model

    widths = {}
    for name, rules in (("apart", ()), ("joined", (Rule("net.[02]", "together"),))):
        run = make_run(tmp_path, pair(), data(image=True))
        part = StructuredSparsity(penalty=0.0, rules=rules)
        driver.compress(run, "s", part, StepOptions(recover=Recover(epochs=0)), Fitter(tmp_path / name))
        widths[name] = (run.model.net[0].out_channels, run.model.net[2].out_channels)
    assert widths == {"apart": (2, 2), "joined": (3, 3)}


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (Rule("net.nothing", "keep"), "rules\\[0\\].match: 'net.nothing' matches no layer"),
        (Rule("net.0", "remove"), "no branch that a shortcut goes around; branches: none"),
        (Rule("net.0", "remove", units=(7,)), "net.0 has 4 units"),
        (Rule("net.?", "together"), "different widths: net.0 has 4, net.2 has 6"),
    ],
)
def test_rules_that_cannot_be_followed(tmp_path, rule, message):
    run = make_run(tmp_path, network(plain()), data(image=True))
    before = run.model
    with pytest.raises(RequestError, match=message):
        StructuredSparsity(penalty=0.0, rules=(rule,)).prepare(run, Fitter(tmp_path))
    assert run.model is before and before.changes == []


def test_layers_that_cannot_be_handled_are_named_or_refused(tmp_path):
    model = nets()["vit"]()
    run = make_run(tmp_path, model, data(image=True))
    run.data.train.x = torch.rand(16, 1, 8, 8)
    run.report = Collected()
    part = StructuredSparsity(penalty=0.0)
    part.prepare(run, Fitter(tmp_path))
    assert any("patch_embeddings.projection was left" in note for note in run.report.notes)
    run.options = StepOptions(strict=True)
    with pytest.raises(RequestError, match="cannot be handled"):
        part.prepare(run, Fitter(tmp_path))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"penalty": -1.0}, "penalty: got -1.0"),
        ({"groups": ("rows",)}, "groups: got"),
        ({"groups": ()}, "groups: got"),
        ({"ratio": 1.0}, "ratio: got 1.0"),
        ({"lr": 0.0}, "lr: got 0.0"),
        ({"most": 0.0}, "most: got 0.0"),
        ({"rules": (Rule("*", "ratio"),)}, "rules\\[0\\].ratio: got None"),
        ({"rules": (Rule("*", "keep", units=(1,)),)}, "rules\\[0\\].units"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(RequestError, match=message):
        StructuredSparsity(**arguments)
