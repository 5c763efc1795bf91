"""scikit-learn's handwritten digits: 1,797 images of 8×8 pixels, inside the scikit-learn package."""

from __future__ import annotations

from bigopt.data import assemble, divide
from bigopt.vocabulary.data import Data, Schema, TensorSplit


def digits(
    *,
    seed: int = 0,
    val: float = 0.2,
    test: float = 0.2,
    labels_per_class: int | None = None,
    unlabelled: bool = False,
    limit: int | None = None,
) -> Data:
    """Handwritten digits of scikit-learn, 8×8 grey images in [0, 1] (the source's 0 to 16, divided by 16).

    Args:
        seed: of the splits.
        val: share of the samples for validation.
        test: share for testing.
        labels_per_class: labelled training samples kept of each class; null keeps all.
        unlabelled: also hand on the training samples that lost their label.
        limit: use only so many training samples.

    Raises:
        RequestError: an argument out of range.
    """
    import torch
    from sklearn.datasets import load_digits

    source = load_digits()
    x = torch.from_numpy(source.images).float().div_(16).unsqueeze(1)
    y = torch.from_numpy(source.target).long()
    names = tuple(str(name) for name in source.target_names)
    schema = Schema("classification", "image", (1, 8, 8), len(names), names)
    train, validation, tested = divide(TensorSplit(x, y), val, test, seed)
    return assemble(
        "digits",
        schema,
        train,
        validation,
        tested,
        seed=seed,
        labels_per_class=labels_per_class,
        unlabelled=unlabelled,
        limit=limit,
        arguments={"val": val, "test": test},
    )
