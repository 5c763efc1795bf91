"""Small nets of each topology, with running statistics and betas that are not zero."""

from __future__ import annotations

import torch
from torch import nn

from bigopt.vocabulary.network import Network


class Sequential(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(108, 10), nn.ReLU(), nn.Linear(10, 3),
        )  # fmt: skip

    def forward(self, x):
        return self.net(x)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.inner = nn.Sequential(nn.Conv2d(8, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU())
        self.outer = nn.Sequential(nn.Conv2d(6, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.act = nn.ReLU()
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.stem(x)
        return self.head(self.act(x + self.outer(self.inner(x))).mean((2, 3)))


class Concatenating(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.left = nn.Sequential(nn.Conv2d(6, 4, 1), nn.BatchNorm2d(4), nn.ReLU())
        self.right = nn.Sequential(nn.Conv2d(6, 5, 3, padding=1), nn.BatchNorm2d(5), nn.ReLU())
        self.join = nn.Conv2d(9, 6, 1)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        x = self.stem(x)
        return self.head(torch.relu(self.join(torch.cat([self.left(x), self.right(x)], 1))).mean((2, 3)))


class Depthwise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU6())
        self.depth = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8), nn.ReLU6())
        self.point = nn.Sequential(nn.Conv2d(8, 6, 1), nn.BatchNorm2d(6), nn.ReLU6())
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.point(self.depth(self.stem(x))).mean((2, 3)))


def vit() -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    return ViTForImageClassification(
        ViTConfig(
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=4,
            intermediate_size=24,
            image_size=6,
            patch_size=3,
            num_channels=1,
            num_labels=3,
            attn_implementation="eager",
        )  # fmt: skip
    )


def bert() -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    return BertForSequenceClassification(
        BertConfig(
            vocab_size=30,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=4,
            intermediate_size=24,
            max_position_embeddings=12,
            num_labels=3,
            attn_implementation="eager",
        )  # fmt: skip
    )


CONVOLUTIONAL = {
    "sequential": Sequential,
    "residual": Residual,
    "concatenating": Concatenating,
    "depthwise": Depthwise,
}
TRANSFORMERS = {"vit": vit, "bert": bert}


def small(topology: str) -> Network:
    """A net with settled statistics, the same each time."""
    torch.manual_seed(0)
    model = Network((CONVOLUTIONAL | TRANSFORMERS)[topology](), pad_id=0 if topology == "bert" else None)
    if topology in CONVOLUTIONAL:
        model.train()
        with torch.no_grad():
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.bias.normal_(0, 0.5)
                    module.weight.uniform_(0.5, 1.5)
            for _ in range(20):
                model(torch.rand(32, 1, 6, 6))
    return model.eval()


def inputs(topology: str, rows: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    if topology == "bert":
        return torch.randint(1, 30, (rows, 8), generator=generator)
    return torch.rand(rows, 1, 6, 6, generator=generator)
