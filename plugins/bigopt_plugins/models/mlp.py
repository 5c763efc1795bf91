"""Multi-layer perceptron; LeNet-300-100 by default."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from bigopt_plugins.models._common import at_least, counts, initialise, refuse, share


class MLP(nn.Module):
    """Fully connected layers with ReLU; LeNet-300-100 (LeCun et al. 1998) by default.

    Takes anything of a fixed size, ``(N, …)``, and flattens it. 266,610 parameters on 28×28 images with 10 classes.

    Args:
        in_features: numbers in one sample, from the data.
        num_classes: classes or regression targets, from the data.
        hidden: units of each hidden layer; an empty list makes a linear model.
        dropout: share of hidden activations dropped in training.

    Raises:
        RequestError: an argument is out of range.
    """

    kinds: ClassVar[tuple[str, ...]] = ("image", "tabular")
    space: ClassVar[dict[str, str]] = {
        "hidden": "choice([64],[300,100],[512,256])",
        "dropout": "choice(0.0,0.2,0.5)",
    }
    min_size: ClassVar[int] = 1

    def __init__(
        self, *, in_features: int, num_classes: int, hidden: tuple[int, ...] = (300, 100), dropout: float = 0.0
    ) -> None:
        super().__init__()
        refuse(
            at_least(1, in_features=in_features, num_classes=num_classes),
            counts("hidden", hidden, empty=True),
            share(dropout=dropout),
        )
        self.body = nn.Sequential()
        sizes = (in_features, *hidden)
        for number, (inputs, outputs) in enumerate(zip(sizes, sizes[1:], strict=False), 1):
            self.body.add_module(f"fc{number}", nn.Linear(inputs, outputs))
            self.body.add_module(f"relu{number}", nn.ReLU())
            if dropout:
                self.body.add_module(f"dropout{number}", nn.Dropout(dropout))
        self.head = nn.Linear(sizes[-1], num_classes)
        initialise(self, self.head)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(N, K)`` of inputs ``(N, …)``."""
        logits: Tensor = self.head(self.body(x.flatten(1)))
        return logits
