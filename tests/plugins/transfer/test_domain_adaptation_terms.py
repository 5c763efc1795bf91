"""Every loss and every score against its paper's formula, computed another way."""

import math

import pytest
import torch
from torch import nn

from bigopt.vocabulary.data import TensorSplit
from bigopt.vocabulary.errors import RequestError
from bigopt_plugins.transfer.domain_adaptation._adabn import adapt_statistics
from bigopt_plugins.transfer.domain_adaptation._bbse import LARGEST, confusion, label_weights
from bigopt_plugins.transfer.domain_adaptation._cdan import ConditionalDiscriminator, cdan, certainty, multilinear
from bigopt_plugins.transfer.domain_adaptation._dan import median_bandwidth, mk_mmd
from bigopt_plugins.transfer.domain_adaptation._dann import Discriminator, dann, domain_loss, ramp, reverse
from bigopt_plugins.transfer.domain_adaptation._deep_coral import coral
from bigopt_plugins.transfer.domain_adaptation._dev import deep_embedded_validation, density_ratio
from bigopt_plugins.transfer.domain_adaptation._mcc import class_confusion
from bigopt_plugins.transfer.domain_adaptation._shot import information, pseudo_labels, shot
from bigopt_plugins.transfer.domain_adaptation._snd import soft_neighbourhood_density
from bigopt_plugins.transfer.domain_adaptation._step import Step


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def step(progress=0.5):
    features = [draw(6, 4, seed=1).requires_grad_(), (draw(5, 4, seed=2) + 1).requires_grad_()]
    head = nn.Linear(4, 3)
    with torch.no_grad():
        head.weight.copy_(draw(3, 4, seed=3))
    return Step(*features, head(features[0]), head(features[1]), progress), head


def test_reversal_turns_the_gradient_and_scales_it():
    x = draw(3, 2).requires_grad_()
    scale = draw(3, 2, seed=1)
    y = reverse(x, 0.3)
    assert torch.equal(y, x)
    (y * scale).sum().backward()
    torch.testing.assert_close(x.grad, -0.3 * scale)


@pytest.mark.parametrize(
    ("progress", "strength"), [(0.0, 0.0), (0.5, 0.986614298), (1.0, 0.999909204)], ids=["start", "middle", "end"]
)
def test_the_schedule_of_the_reversal(progress, strength):
    assert ramp(progress) == pytest.approx(strength, abs=1e-8)


def test_a_blind_discriminator_costs_ln_2():
    assert domain_loss(torch.zeros(4), torch.zeros(9)).item() == pytest.approx(math.log(2))
    source, target = torch.tensor([2.0, -1.0]), torch.tensor([0.5])
    by_hand = (math.log1p(math.exp(-2)) + math.log1p(math.exp(1))) / 2 + math.log1p(math.exp(0.5))
    assert domain_loss(source, target).item() == pytest.approx(by_hand / 2)


def test_dann_trains_the_discriminator_forwards_and_the_features_backwards():
    torch.manual_seed(0)
    seen, _ = step()
    discriminator = Discriminator(4, 8)
    plain = domain_loss(discriminator(seen.source), discriminator(seen.target))
    wanted = torch.autograd.grad(plain, [seen.source, *discriminator.parameters()])
    loss = dann(seen, discriminator)
    assert loss.item() == pytest.approx(plain.item())
    got = torch.autograd.grad(loss, [seen.source, *discriminator.parameters()])
    torch.testing.assert_close(got[0], -ramp(0.5) * wanted[0])
    for a, b in zip(got[1:], wanted[1:], strict=True):
        torch.testing.assert_close(a, b)


def test_multilinear_map_and_entropy_conditioning():
    joint = multilinear(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.25, 0.75]]))
    assert joint.tolist() == [[0.25, 0.75, 0.5, 1.5]]
    p = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    raw = torch.tensor([2.0, 1 + math.exp(-math.log(2))])  # H = 0 and ln 2
    torch.testing.assert_close(certainty(p), raw / raw.mean())


def test_the_random_map_keeps_inner_products():
    features, classes = draw(2, 600, seed=4), torch.softmax(draw(2, 10, seed=5), 1)
    drawn = ConditionalDiscriminator(600, 10, 4)
    assert drawn.domain.inputs == 1024
    joint = (features @ drawn.random_features) * (classes @ drawn.random_classes) / 32
    exact = (features @ features.T) * (classes @ classes.T)
    assert (joint[0] @ joint[0]).item() == pytest.approx(exact[0, 0].item(), rel=0.25)


def test_cdan_gives_the_head_nothing():
    torch.manual_seed(0)
    seen, head = step()
    discriminator = ConditionalDiscriminator(4, 3, 8)
    cdan(seen, discriminator).backward()
    assert head.weight.grad is None and head.bias.grad is None
    assert seen.source.grad.abs().sum() > 0 and seen.target.grad.abs().sum() > 0
    assert all(parameter.grad.abs().sum() > 0 for parameter in discriminator.parameters())


def test_mmd_is_the_double_loop():
    x, y = draw(4, 3), draw(5, 3, seed=1) + 0.5
    rows = torch.cat([x, y])
    apart = [(a - b).square().sum().item() for i, a in enumerate(rows) for j, b in enumerate(rows) if i != j]
    bandwidth = sorted(apart)[(len(apart) - 1) // 2]
    assert median_bandwidth(x, y).item() == pytest.approx(bandwidth, rel=1e-5)

    def k(a, b):
        scales = (0.25, 0.5, 1.0, 2.0, 4.0)
        return sum(math.exp(-(a - b).square().sum().item() / (s * bandwidth)) for s in scales) / 5

    def within(z):
        n = len(z)
        return sum(k(z[i], z[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))

    by_hand = within(x) + within(y) - 2 * sum(k(a, b) for a in x for b in y) / 20
    assert mk_mmd(x, y).item() == pytest.approx(by_hand, abs=1e-5)


def test_coral_divides_by_four_d_squared():
    x = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]])  # covariance diag(1, 0)
    y = torch.tensor([[0.0, 3.0], [0.0, -3.0], [0.0, 0.0]])  # diag(0, 9)
    assert coral(x, y).item() == pytest.approx((1 + 81) / (4 * 4))
    assert coral(x + 5, x).item() == pytest.approx(0.0)


def test_mcc_by_hand():
    logits = draw(4, 3, seed=6) * 3
    p = [[math.exp(v / 2.5) for v in row] for row in logits.tolist()]
    p = [[v / sum(row) for v in row] for row in p]
    w = [1 + math.exp(sum(v * math.log(v) for v in row)) for row in p]
    w = [4 * v / sum(w) for v in w]
    c = [[sum(w[i] * p[i][a] * p[i][b] for i in range(4)) for b in range(3)] for a in range(3)]
    by_hand = sum(c[a][b] / sum(c[a]) for a in range(3) for b in range(3) if a != b) / 3
    assert class_confusion(logits).item() == pytest.approx(by_hand, rel=1e-5)
    assert class_confusion(torch.eye(3) * 100).item() == pytest.approx(0.0, abs=1e-6)


def test_shot_wants_answers_certain_and_diverse():
    assert information(torch.eye(2) * 100).item() == pytest.approx(-math.log(2), abs=1e-5)
    assert information(torch.tensor([[100.0, 0.0], [100.0, 0.0]])).item() == pytest.approx(0.0, abs=1e-5)
    assert information(torch.zeros(3, 2)).item() == pytest.approx(0.0, abs=1e-6)
    terms = shot(torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([1, 0]))
    by_hand = (math.log1p(math.exp(-1)) + math.log(2)) / 2
    assert terms["pseudo"].item() == pytest.approx(0.3 * by_hand)


def test_pseudo_labels_follow_the_clusters_not_single_answers():
    features = torch.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, -0.1], [0.0, 1.0], [0.1, 1.0]])
    p = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.1, 0.9], [0.3, 0.7]])  # row 2 is told wrong
    assert pseudo_labels(features, p).tolist() == [0, 0, 0, 1, 1]


def test_soft_neighbourhood_density():
    assert soft_neighbourhood_density(torch.zeros(6, 3)) == pytest.approx(math.log(5), abs=1e-5)
    logits = draw(5, 3)
    p = logits.softmax(1)
    total = 0.0
    for i in range(5):
        s = [math.exp(torch.cosine_similarity(p[i], p[j], dim=0).item() / 0.05) for j in range(5) if j != i]
        total -= sum(v / sum(s) * math.log(v / sum(s)) for v in s) / 5
    assert soft_neighbourhood_density(logits) == pytest.approx(total, rel=1e-4)


def test_dev_is_the_risk_with_a_control_variate():
    losses = torch.tensor([0.1, 0.4, 0.2, 0.9], dtype=torch.float64)
    assert deep_embedded_validation(torch.ones(4).double(), losses) == pytest.approx(0.4)
    weights = torch.tensor([0.5, 2.0, 0.7, 1.2], dtype=torch.float64)
    both = torch.stack([weights * losses, weights])
    eta = -torch.cov(both)[0, 1] / torch.cov(both)[1, 1]
    by_hand = (weights * losses).mean() + eta * weights.mean() - eta
    assert deep_embedded_validation(weights, losses) == pytest.approx(by_hand.item())


def test_density_ratio_of_two_known_domains():
    source, target = draw(6000, 1), draw(3000, 1, seed=1) + 1  # N(0, 1) and N(1, 1): w(x) = exp(x - 1/2)
    query = torch.tensor([[-1.0], [0.0], [1.0], [2.0]])
    wanted = (query.squeeze(1) - 0.5).exp().double()
    torch.testing.assert_close(density_ratio(source, target, query), wanted, rtol=0.12, atol=0.0)


def test_bbse_recovers_a_known_shift():
    source = torch.tensor([0.5, 0.3, 0.2]).double()
    target = torch.tensor([0.1, 0.3, 0.6]).double()
    answers = torch.tensor([[0.8, 0.1, 0.0], [0.2, 0.7, 0.1], [0.0, 0.2, 0.9]]).double()  # p(predicted | label)
    weights = label_weights(answers * source, answers @ target)
    torch.testing.assert_close(weights, target / source)


def test_bbse_from_predictions_and_with_a_class_that_is_never_predicted():
    y = torch.tensor([0, 0, 1, 1])
    joint = confusion(torch.tensor([0, 1, 1, 1]), y, 2)
    assert joint.tolist() == [[0.25, 0.0], [0.25, 0.5]]
    blind = confusion(torch.tensor([0, 0, 0, 0]), y, 2)
    weights = label_weights(blind, torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(weights, torch.ones(2).double())
    rare = label_weights(torch.tensor([[0.999, 0.0], [0.0, 0.001]]).double(), torch.tensor([0.5, 0.5]))
    assert rare.max() / rare.min() < 1.01 * LARGEST / 0.5


def test_adabn_has_the_targets_statistics_layer_by_layer():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))
    model.train()
    x = draw(20, 1, 5, 5) * 2 + 3
    weights = {name: value.clone() for name, value in model.named_parameters()}
    assert adapt_statistics(model, TensorSplit(x, torch.zeros(20)), batch_size=7) == 2
    first = model[0](x)
    torch.testing.assert_close(model[1].running_mean, first.mean((0, 2, 3)))
    torch.testing.assert_close(model[1].running_var, first.var((0, 2, 3), correction=1))
    model.eval()
    second = model[3](model[2](model[1](first)))
    torch.testing.assert_close(model[4].running_mean, second.mean((0, 2, 3)), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(model[4].running_var, second.var((0, 2, 3), correction=1), atol=1e-5, rtol=1e-4)
    assert all(torch.equal(weights[name], value) for name, value in model.named_parameters())


def test_adabn_needs_batch_norm():
    with pytest.raises(RequestError, match="needs a model with batch norm"):
        adapt_statistics(nn.Linear(2, 2), TensorSplit(draw(3, 2), torch.zeros(3)))
