from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from bigopt.measure import epochs_to_target, expected_calibration_error, robustness, robustness_metrics
from bigopt.measure._corruptions import CorruptedSplit, corruptions, seed_of
from bigopt.measure._robustness import near
from bigopt.vocabulary.data import Schema, Split, TensorSplit
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.objective import Monitor
from bigopt.vocabulary.run import History
from bigopt.vocabulary.task import Task

GREY = Schema("classification", "image", (1, 13, 11), 2, ("dark", "bright"))
IMAGE_NAMES = {
    "gaussian_noise", "gaussian_blur", "brightness", "contrast", "rotation", "translation", "erasing", "jpeg",
}  # fmt: skip


def images(schema: Schema = GREY, rows: int = 12) -> TensorSplit:
    """Half of the images dark, half bright, each with a square in it."""
    generator = torch.Generator().manual_seed(0)
    x = 0.1 + 0.1 * torch.rand(rows, *schema.shape, generator=generator)
    x[rows // 2 :] += 0.5
    x[..., 3:7, 3:7] += 0.2
    return TensorSplit(x, (torch.arange(rows) >= rows // 2).long())


def take_all(split: Split) -> Tensor:
    return split.take(torch.arange(len(split)))


def spoiled(name: str, severity: int, schema: Schema = GREY, seed: int = 0, split: Split | None = None) -> Tensor:
    corruption = corruptions(schema, torch.ones(3))[name]
    return take_all(CorruptedSplit(split or images(schema), corruption, severity, seed))


def by_brightness(split: Split) -> Tensor:
    """Logits of a classifier that looks at the mean only."""
    mean = take_all(split).mean((1, 2, 3))
    return torch.stack((0.45 - mean, mean - 0.45), 1) * 10


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", sorted(IMAGE_NAMES))
def test_images_are_spoiled_more_and_more_within_their_range(name: str, channels: int) -> None:
    schema = Schema("classification", "image", (channels, 13, 11), 2)
    clean = take_all(images(schema))
    distances = []
    for severity in range(1, 6):
        x = spoiled(name, severity, schema)
        assert x.shape == clean.shape and x.min() >= 0 and x.max() <= 1 and x.dtype == torch.float32
        distances.append((x - clean).square().mean().item())
    assert distances[0] > 0 and distances == sorted(distances) and len(set(distances)) == 5


def test_every_image_corruption_is_covered() -> None:
    assert set(corruptions(GREY)) == IMAGE_NAMES
    assert set(corruptions(Schema("classification", "image", (4, 8, 8), 2))) == IMAGE_NAMES - {"jpeg"}


@pytest.mark.parametrize("name", ["gaussian_noise", "rotation", "translation", "erasing"])
def test_what_is_drawn_belongs_to_the_sample_and_the_seed(name: str) -> None:
    split = CorruptedSplit(images(), corruptions(GREY)[name], 3, seed=5)
    whole = take_all(split)
    assert torch.equal(torch.cat([split.take(torch.tensor([row])) for row in range(12)]), whole)
    assert torch.equal(split.take(torch.tensor([7, 2])), whole[[7, 2]])
    assert not torch.equal(take_all(CorruptedSplit(images(), corruptions(GREY)[name], 3, seed=6)), whole)


def test_corruptions_do_as_their_strength_says() -> None:
    clean = TensorSplit(torch.full((200, 1, 16, 16), 0.5), torch.zeros(200, dtype=torch.int64))
    schema = Schema("classification", "image", (1, 16, 16), 2)
    noise = spoiled("gaussian_noise", 3, schema, split=clean) - 0.5
    assert noise.std().item() == pytest.approx(0.12, rel=0.02) and abs(noise.mean().item()) < 1e-3
    assert torch.allclose(spoiled("brightness", 3, schema, split=clean), torch.full((), 0.8))
    erased = spoiled("erasing", 5, schema, split=clean)
    assert (erased == 0).sum((1, 2, 3)).tolist() == [64] * 200  # a quarter of 256, as a square of 8
    tops = (erased == 0).any(3).float().argmax(2).flatten()
    assert set(tops.tolist()) == set(range(9))
    x = torch.rand(5, 1, 16, 16)
    flat = spoiled("contrast", 5, schema, split=TensorSplit(x, torch.zeros(5)))
    assert (flat.std((1, 2, 3)) / x.std((1, 2, 3))).tolist() == pytest.approx([0.2] * 5, rel=1e-3)
    assert (flat.mean((1, 2, 3)) - x.mean((1, 2, 3))).abs().max() < 1e-6


def test_dropped_tokens_close_the_gap() -> None:
    schema = Schema("classification", "text", (8,), 2, vocab_size=99, pad_id=1)
    tokens = torch.tensor([[7, 10, 11, 12, 13, 14, 1, 1]]).repeat(400, 1)
    x = spoiled("token_drop", 5, schema, split=TensorSplit(tokens, torch.zeros(400)))
    kept = [[token for token in row if token != 1] for row in x.tolist()]
    assert all(row[: len(left)] == left for row, left in zip(x.tolist(), kept, strict=True))
    assert all(left == sorted(left) and left[0] == 7 for left in kept)
    assert sum(6 - len(left) for left in kept) / (400 * 5) == pytest.approx(0.4, abs=0.03)


def test_feature_noise_is_in_units_of_the_feature() -> None:
    schema = Schema("regression", "tabular", (3,), 1)
    split = TensorSplit(torch.zeros(4000, 3), torch.zeros(4000, 1))
    corruption = corruptions(schema, torch.tensor([1.0, 100.0, 0.0]))["feature_noise"]
    noise = take_all(CorruptedSplit(split, corruption, 3, 0))
    assert noise.std(0).tolist() == pytest.approx([0.4, 40.0, 0.0], rel=0.04)


def test_result_of_a_classifier() -> None:
    split = images()
    train = TensorSplit(split.x, split.y.flip(0))  # a training split on which it is always wrong
    result = robustness(by_brightness, split, GREY, Task.of(GREY), (1, 5), seed=3, train=train)
    assert (result["metric"], result["clean"], result["train_val_gap"]) == ("accuracy", 1.0, -1.0)
    assert set(result["corruptions"]) == IMAGE_NAMES
    assert all(set(row) == {"1", "5"} for row in result["corruptions"].values())
    assert result["corruptions"]["brightness"] == {"1": 1.0, "5": 0.5}  # all bright then
    assert result["means"]["brightness"] == 0.75
    assert result["mean"] == pytest.approx(sum(result["means"].values()) / 8)
    assert result["worst_class"]["accuracy"] == 1.0
    assert result == robustness(by_brightness, split, GREY, Task.of(GREY), (1, 5), seed=3, train=train)
    flat = robustness_metrics(result | {"epochs_to_target": 4})
    assert flat["robustness/brightness"] == 0.75 and flat["robustness/epochs_to_target"] == 4.0
    assert flat["robustness/worst_class"] == 1.0 and flat["robustness/train_val_gap"] == -1.0


def test_the_worst_class_is_named() -> None:
    split = images()
    split.y = torch.tensor([0] * 6 + [1] * 3 + [0] * 3)
    result = robustness(by_brightness, split, GREY, Task.of(GREY), (1,))
    assert result["worst_class"] == {"class": "dark", "accuracy": pytest.approx(6 / 9)}
    assert result["train_val_gap"] is None and "robustness/train_val_gap" not in robustness_metrics(result)


def test_result_of_a_regression() -> None:
    schema = Schema("regression", "tabular", (3,), 1)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(500, 3, generator=generator)
    split = TensorSplit(x, x.sum(1, keepdim=True) + 1)
    result = robustness(
        lambda rows: take_all(rows).sum(1, keepdim=True),
        split, schema, Task.of(schema), (5,), train=TensorSplit(x, x.sum(1, keepdim=True)),
    )  # fmt: skip
    assert (result["metric"], result["worst_class"], result["calibration_error"]) == ("rmse", None, None)
    assert result["clean"] == pytest.approx(1.0) and result["train_val_gap"] == pytest.approx(1.0)
    assert result["mean"] == pytest.approx((1 + 3 * 0.8**2) ** 0.5, rel=0.1)


def test_a_file_and_its_model_are_judged_alike(residual: Any, residual_file: Any) -> None:
    schema = Schema("classification", "image", (1, 8, 8), 3)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(30, 1, 8, 8, generator=generator)
    with torch.no_grad():
        split = TensorSplit(x, residual(x).argmax(1))

        def predict(rows: Split) -> Tensor:
            return residual(take_all(rows))

        model = robustness(predict, split, schema, Task.of(schema), (3,))
    file = robustness(residual_file, split, schema, Task.of(schema), (3,), batch_size=7)
    assert file["corruptions"] == model["corruptions"] and file["clean"] == 1.0


@pytest.mark.parametrize("severities", [(), (0,), (3, 6)])
def test_severities_are_checked(severities: tuple[int, ...]) -> None:
    with pytest.raises(RequestError, match=r"evaluate\.severities: got \["):
        robustness(by_brightness, images(), GREY, Task.of(GREY), severities)


def logits_of(confidences: list[float]) -> Tensor:
    p = torch.tensor(confidences, dtype=torch.float64)
    return torch.stack((p, 1 - p), 1).log()


def test_calibration_error_by_hand() -> None:
    """Two bins: 0.9 and right twice (gap 0.1), 0.6 and right once of twice (gap 0.1)."""
    y = torch.tensor([0, 0, 0, 1])
    assert expected_calibration_error(logits_of([0.9, 0.9, 0.6, 0.6]), y) == pytest.approx(0.1)
    # 0.61 and 0.65 share one of 15 bins, not of 100: |0.5 - 0.63| there, |0 - 0.61| and |1 - 0.65| here.
    other = logits_of([0.9, 0.9, 0.65, 0.61])
    assert expected_calibration_error(other, y) == pytest.approx((2 * 0.1 + 2 * 0.13) / 4)
    assert expected_calibration_error(other, y, bins=100) == pytest.approx((2 * 0.1 + 0.35 + 0.61) / 4)


def test_calibration_error_of_a_sure_classifier() -> None:
    sure = torch.tensor([[50.0, 0.0]] * 4)
    assert expected_calibration_error(sure, torch.tensor([0, 0, 0, 0])) == pytest.approx(0.0, abs=1e-9)
    assert expected_calibration_error(sure, torch.tensor([0, 1, 1, 1])) == pytest.approx(0.75)


def test_epochs_to_a_target_count_over_all_trainings() -> None:
    first = History("baseline", [{"val/accuracy": 0.5}, {"val/accuracy": 0.8}])
    second = History("recover", [{}, {"val/accuracy": 0.9}, {"val/accuracy": 0.95}])
    accuracy = Monitor("val/accuracy", "max")
    assert epochs_to_target([first, second], accuracy, 0.8) == 2
    assert epochs_to_target([first, second], accuracy, 0.85) == 4
    assert epochs_to_target([first, second], accuracy, 0.99) is None
    assert epochs_to_target([History("f", [{"l": 2.0}, {"l": 1.0}])], Monitor("l", "min"), 1.5) == 2
    assert near(0.8, accuracy) == pytest.approx(0.76) and near(2.0, Monitor("l", "min")) == pytest.approx(2.1)


def test_seeds_differ_by_corruption() -> None:
    assert len({seed_of(seed, name) for seed in range(3) for name in IMAGE_NAMES}) == 24
