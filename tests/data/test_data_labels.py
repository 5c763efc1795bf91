"""Few labels, few samples, and labels that cannot be read."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from bigopt.data import StreamSplit, assemble, has_labels, hide_labels, limit_labels, limit_samples, subset
from bigopt.vocabulary.data import Data, Schema, TensorSplit
from bigopt.vocabulary.errors import RequestError


def pool(per_class: int = 20, classes: int = 3) -> TensorSplit:
    """Sorted by class, as folders are; each input holds its own number, so that samples can be told apart."""
    n = per_class * classes
    return TensorSplit(torch.arange(n).float().reshape(-1, 1), torch.arange(n) // per_class)


def test_labels_per_class_keeps_so_many_and_hands_on_the_rest_without_labels() -> None:
    train, rest = limit_labels(pool(), 4, True, seed=0)
    assert train.y.bincount().tolist() == [4, 4, 4]
    assert rest is not None and len(rest) == 48
    kept, lost = train.take(torch.arange(12)), rest.take(torch.arange(48))
    assert torch.equal(torch.cat([kept, lost]).flatten().sort().values, torch.arange(60).float())
    assert torch.equal(kept.flatten().long() // 20, train.y)
    other, _ = limit_labels(pool(), 4, True, seed=1)
    assert not torch.equal(other.take(torch.arange(12)), kept)
    assert limit_labels(pool(), 4, False, seed=0)[1] is None
    assert limit_labels(pool(), 20, True, seed=0)[1] is None


def test_unlabelled_never_carries_readable_labels() -> None:
    stream = StreamSplit(lambda i: torch.tensor([float(i)]), pool().y)
    for source in (pool(), stream):
        for labels_per_class in (None, 0, 4):
            train, rest = limit_labels(source, labels_per_class, True, seed=0)
            assert rest is not None
            assert bool((rest.y == -1).all())
            assert not has_labels(rest)
            reachable = [value for value in vars(rest).values() if isinstance(value, torch.Tensor)]
            assert not any(torch.equal(value.flatten(), pool().y[: len(value)]) for value in reachable)
            if labels_per_class == 0:
                assert train is rest
            # Neither does the order tell the class: sorted data would otherwise give themselves away.
            values = rest.take(torch.arange(len(rest))).flatten()
            assert not torch.equal(values, values.sort().values)


def test_a_loss_that_reads_hidden_labels_fails() -> None:
    hidden = hide_labels(pool())
    with pytest.raises((IndexError, RuntimeError)):
        functional.cross_entropy(torch.zeros(len(hidden), 3), hidden.y)
    targets = hide_labels(TensorSplit(torch.zeros(4, 1), torch.ones(4, 2)))
    assert bool(targets.y.isnan().all()) and not has_labels(targets)
    assert has_labels(pool())


@pytest.mark.parametrize(
    ("wanted", "unlabelled", "says"),
    [
        (21, False, r"dataset.labels_per_class: got 21, but .*: zero \(20\), one \(20\), 2 \(20\)"),
        (-1, False, "expected 0 or more"),
        (0, False, "dataset.unlabelled=true"),
    ],
)
def test_impossible_label_budgets(wanted: int, unlabelled: bool, says: str) -> None:
    with pytest.raises(RequestError, match=says):
        limit_labels(pool(), wanted, unlabelled, 0, ("zero", "one"))


def test_regression_has_no_classes_to_limit() -> None:
    split = TensorSplit(torch.zeros(5, 2), torch.zeros(5, 1))
    with pytest.raises(RequestError, match="regression"):
        limit_labels(split, 2, True, 0)
    train, rest = limit_labels(split, None, True, 0)
    assert train is split and rest is not None and not has_labels(rest)


def test_limit_keeps_every_class_in_its_share() -> None:
    y = torch.tensor([0] * 80 + [1] * 18 + [2] * 2)
    split = TensorSplit(torch.arange(100).float().reshape(-1, 1), y)
    few = limit_samples(split, 10, seed=0)
    assert few.y.bincount(minlength=3).tolist() == [7, 2, 1]
    assert len(limit_samples(split, 3, seed=0).y.unique()) == 3
    assert limit_samples(split, 1000, seed=0) is split
    with pytest.raises(RequestError, match="dataset.limit: got 2, expected at least 3"):
        limit_samples(split, 2, seed=0)
    with pytest.raises(RequestError, match="dataset.limit: got 0"):
        limit_samples(split, 0, seed=0, stratify=False)


def _assemble(**options: object) -> Data:
    train, held = pool(), pool(4)
    schema = Schema("classification", "tabular", (1,), 3, ("a", "b", "c"))
    return assemble("toy", schema, train, held, subset(held, torch.arange(12)), seed=0, **options)  # type: ignore[arg-type]


def test_assembled_data_say_what_their_labels_cost() -> None:
    data = _assemble(labels_per_class=2, unlabelled=True)
    assert len(data.train) == 6 and data.unlabelled is not None and len(data.unlabelled) == 54
    assert "6 of 60 training samples keep their label; validation reads 12 further labels" in data.notes[0]
    # Inputs of all training samples, labelled or not, set the normalisation.
    assert data.mean is not None and data.mean.item() == pytest.approx(29.5)
    few = _assemble(labels_per_class=2)
    seen = few.train.take(torch.arange(6)).double()
    assert few.mean is not None and few.mean.item() == pytest.approx(seen.mean().item())
    assert few.std is not None and few.std.item() == pytest.approx(seen.std(correction=0).item())
    assert "limit: 30 of 60" in _assemble(limit=30).notes[0]


def test_fingerprint_changes_with_every_choice_and_with_nothing_else() -> None:
    same = {_assemble().fingerprint, _assemble().fingerprint}
    assert len(same) == 1
    choices = [{}, {"limit": 30}, {"labels_per_class": 2}, {"unlabelled": True}, {"arguments": {"size": 8}}]
    assert len({_assemble(**options).fingerprint for options in choices}) == len(choices)
