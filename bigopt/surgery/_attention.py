"""Multi-head attention as transformers writes it: which projections form heads, and the sizes to mend afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

PROJECTIONS = (("query", "key", "value"), ("q_proj", "k_proj", "v_proj"), ("q_lin", "k_lin", "v_lin"))
HEADS = ("num_attention_heads", "num_heads", "n_heads")
WIDTHS = ("all_head_size", "embed_dim", "inner_dim", "dim")


@dataclass(frozen=True)
class Attention:
    """One attention block.

    Attributes:
        name: module that holds the projections.
        projections: names of the query, key and value layers.
        heads: attribute of the module that counts heads.
        head_size: channels of one head.
    """

    name: str
    projections: tuple[str, ...]
    heads: str
    head_size: int


def attention_blocks(model: nn.Module) -> list[Attention]:
    """All attention blocks whose projections are separate linear layers."""
    found = []
    for name, module in model.named_modules():
        heads = next((a for a in HEADS if isinstance(getattr(module, a, None), int)), None)
        triple = next((t for t in PROJECTIONS if all(isinstance(getattr(module, p, None), nn.Linear) for p in t)), None)
        if heads is None or triple is None:
            continue
        width = getattr(module, triple[0]).out_features
        prefix = f"{name}." if name else ""
        found.append(Attention(name, tuple(prefix + p for p in triple), heads, width // getattr(module, heads)))
    return found


def shrink_attention(model: nn.Module, blocks: Sequence[Attention], layers: Sequence[str], heads: int) -> None:
    """Subtracts removed heads from the counts that the blocks' forward passes read."""
    for block in blocks:
        if not set(block.projections) & set(layers):
            continue
        module = model.get_submodule(block.name)
        left = getattr(module, block.heads) - heads
        setattr(module, block.heads, left)
        for width in WIDTHS:
            if isinstance(getattr(module, width, None), int):
                setattr(module, width, left * block.head_size)
