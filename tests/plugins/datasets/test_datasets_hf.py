"""hf_dataset: with the package where it is installed, and the message where it is not."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bigopt.vocabulary.errors import RequestError
from bigopt_plugins.datasets.hf_dataset import hf_dataset


def test_without_the_package_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(RequestError, match=r"needs the package 'datasets'.*pip install 'bigopt\[hf-datasets\]'"):
        hf_dataset(path=str(tmp_path))


def test_a_missing_folder_is_said_first(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="dataset.path: the folder .* does not exist"):
        hf_dataset(path=str(tmp_path / "none"))


@pytest.fixture
def hf() -> Any:
    return pytest.importorskip("datasets", reason="the extra hf-datasets is not installed")


def png(value: int, size: int = 10) -> dict[str, Any]:
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(np.full((size, size), value, dtype=np.uint8)).save(content, "PNG")
    return {"bytes": content.getvalue(), "path": None}


def images(hf: Any, n: int, names: tuple[str, ...] = ("dark", "bright"), labels: list[int] | None = None) -> Any:
    features = hf.Features({"picture": hf.Image(), "label": hf.ClassLabel(names=list(names))})
    labels = labels if labels is not None else [i % 2 for i in range(n)]
    rows = [png(200 * (i % 2) + i % 7) for i in range(n)]
    return hf.Dataset.from_dict({"picture": rows, "label": labels}, features=features)


def test_images(hf: Any, tmp_path: Path) -> None:
    images(hf, 60).save_to_disk(tmp_path / "one")
    data = hf_dataset(path=str(tmp_path / "one"), size=8, channels=1)
    assert data.schema.shape == (1, 8, 8) and data.schema.class_names == ("dark", "bright")
    assert (len(data.train), len(data.val), len(data.test or [])) == (48, 6, 6)
    x = data.train.take(torch.arange(48))
    assert torch.equal((x.mean((1, 2, 3)) > 0.5).long(), data.train.y)


def test_its_own_splits_are_kept_and_unlabelled_ones_replaced(hf: Any, tmp_path: Path) -> None:
    splits = {"train": images(hf, 40), "validation": images(hf, 8), "test": images(hf, 10, labels=[-1] * 10)}
    hf.DatasetDict(splits).save_to_disk(tmp_path / "three")
    data = hf_dataset(path=str(tmp_path / "three"), size=8)
    assert (len(data.train), len(data.val), len(data.test or [])) == (36, 8, 4)


def test_texts(hf: Any, tmp_path: Path) -> None:
    rows = {
        "text": [f"{'good film' if i % 2 else 'bad film'} {i}" for i in range(40)],
        "stars": [5 * (i % 2) for i in range(40)],
    }
    hf.Dataset.from_dict(rows).save_to_disk(tmp_path / "texts")
    data = hf_dataset(path=str(tmp_path / "texts"), label="stars")
    assert data.schema.kind == "text" and data.schema.class_names == ("0", "5")
    assert "good" in data.details["tokenizer"]["json"]
    with pytest.raises(RequestError, match="dataset.label: .*no column 'star'.*nearest: stars"):
        hf_dataset(path=str(tmp_path / "texts"), label="star")
    with pytest.raises(RequestError, match="dataset.column: .*no column 'txt'.*nearest: text"):
        hf_dataset(path=str(tmp_path / "texts"), label="stars", column="txt")


def test_damage(hf: Any, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="cannot be read as a saved dataset"):
        (tmp_path / "empty").mkdir()
        hf_dataset(path=str(tmp_path / "empty"))
    features = hf.Features({"picture": hf.Image(), "label": hf.ClassLabel(names=["a", "b"])})
    rows = [png(i) for i in range(20)]
    rows[7] = {"bytes": b"no image", "path": None}
    hf.Dataset.from_dict({"picture": rows, "label": [i % 2 for i in range(20)]}, features=features).save_to_disk(
        tmp_path / "damaged"
    )
    with pytest.raises(RequestError, match="train split, row 7, column 'picture': not a readable image"):
        hf_dataset(path=str(tmp_path / "damaged"))
