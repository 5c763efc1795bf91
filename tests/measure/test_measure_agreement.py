from __future__ import annotations

import math
import zlib
from pathlib import Path

import pytest
import torch

from bigopt.measure import agreement, sizes
from bigopt.vocabulary.task import Task


def test_classes_agree_by_the_largest_logit() -> None:
    reference = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.5], [3.0, 2.0]])
    exported = torch.tensor([[0.9, 0.0], [0.0, 1.25], [0.5, 0.6], [3.0, 2.0]])
    assert agreement(reference, exported, Task("classification", 2)) == (0.25, 0.75)


def test_regression_agrees_within_a_thousandth_of_each_columns_scale() -> None:
    reference = torch.tensor([[1000.0, 1.0], [0.0, 0.5], [-500.0, -1.0]])
    exported = torch.tensor([[1000.9, 1.0], [0.0, 0.502], [-500.0, -1.0005]])
    difference, share = agreement(reference, exported, "regression")
    assert difference == pytest.approx(0.9, abs=1e-4)
    assert share == pytest.approx(2 / 3)


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_nan_agrees_with_nothing(task: str) -> None:
    reference = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    exported = torch.tensor([[math.nan, 0.0], [1.0, 0.0]])
    assert agreement(reference, exported, task) == (math.inf, 0.5)  # type: ignore[arg-type]


def test_other_shapes_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(2, 2\)"):
        agreement(torch.zeros(2, 3), torch.zeros(2, 2), "classification")


def test_sizes_on_disk_and_deflated(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    noise = bytes(torch.randint(0, 256, (1_500_000,), generator=generator, dtype=torch.uint8).tolist())
    (tmp_path / "dense").write_bytes(noise)
    (tmp_path / "sparse").write_bytes(noise[:300_000] + bytes(1_200_000))
    assert sizes(tmp_path / "dense") == (1_500_000, len(zlib.compress(noise, 9)))
    stored, packed = sizes(tmp_path / "sparse")
    assert stored == 1_500_000 and 300_000 < packed < 303_000
    assert sizes(tmp_path / "sparse") == (stored, packed)
