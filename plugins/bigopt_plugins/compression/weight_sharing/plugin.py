"""Weights that share few values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.part import Fit, Part
from bigopt.vocabulary.run import Run
from bigopt_plugins.compression._held import release, share_left
from bigopt_plugins.compression._weights import CONVOLUTIONS, network, tell_left, weighted
from bigopt_plugins.compression.weight_sharing._entropy import VALUE_BITS, size_of
from bigopt_plugins.compression.weight_sharing._kmeans import cluster, codebook_of

MOST_BITS = 8
SHARED = (*CONVOLUTIONS, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.Linear, nn.Embedding)
CODES = "weight_codes"
"""Buffer beside a weight that says which of its entries share a value; it is in no file."""


class WeightSharing(Part):
    """Replaces the weights of every layer by few shared values, and trains these while it recovers.

    Deep Compression (Han et al. 2016, arXiv:1510.00149): k-means gives each layer a codebook of ``2^bits`` centroids
    ``c_k`` that minimise ``Σ_k Σ_{w in k} |w - c_k|²``; weights become their centroids. While the model recovers, a
    centroid's gradient is the sum of its weights', ``∂L/∂c_k = Σ_i ∂L/∂w_i · 1(code_i = k)``. Weights that an earlier
    step set to zero keep zero as a value of their own, which is not trained.

    The report gives the size that a decoder needs: Huffman bits of the codes, counted exactly, the centroids, the code
    lengths, and everything else in 32 bits. Sparse layers are counted as non-zeros and gaps where that is smaller. The
    model itself stays a plain one: its file has the shared values in float, so that ``bytes_zip`` changes, while
    ``bytes`` and latency do not.

    With ``trainer.gradient_clip`` a sum counts once for every weight that has it; with plain SGD, sums are large: lower
    ``recover.lr``.

    Args:
        bits: of a code, 1 to 8: a codebook has ``2^bits`` values.
        conv_bits: the same for convolutions, which tolerate less; null means ``bits`` (the paper: 8 and 5).
        start: where k-means starts: ``linear`` between the least and the largest weight, which keeps large weights
            and was best in the paper, ``density`` at quantiles, ``random`` weights.

    Raises:
        RequestError: an argument is out of range.
    """

    space: ClassVar[dict[str, str]] = {"bits": "int(interval(2,6))"}
    strengths: ClassVar[tuple[float, ...]] = tuple(1 - bits / 32 for bits in range(MOST_BITS, 0, -1))

    def __init__(
        self,
        bits: int = 5,
        conv_bits: int | None = None,
        start: Literal["linear", "density", "random"] = "linear",
    ) -> None:
        problems = []
        for name, value in (("bits", bits), ("conv_bits", bits if conv_bits is None else conv_bits)):
            if not 1 <= value <= MOST_BITS:
                problems.append(f"{name}: got {value}, expected 1 to {MOST_BITS}")
        if start not in ("linear", "density", "random"):
            problems.append(f"start: got {start!r}, expected linear, density or random")
        if problems:
            raise RequestError(problems)
        self.width = bits
        self.conv_bits = conv_bits
        self.start = start

    def strength(self) -> float:
        """The share of a weight's 32 bits that its code saves."""
        return 1 - self.width / VALUE_BITS

    def layers(self, run: Run) -> Sequence[str]:
        """Convolutions, linear layers and embeddings that are not ignored."""
        return list(weighted(run, SHARED)[0])

    def apply(self, run: Run, strength: float, only: str | None = None) -> None:
        """Clusters the weights, to codes of the bits that are left; above 8 bits nothing is shared yet.

        Raises:
            RequestError: ``strict`` and a layer cannot be handled.
        """
        model = network(run, "weight_sharing")
        layers, left = weighted(run, SHARED)
        for name in [name for name in layers if only in (None, name)]:
            bits = self._bits(layers[name], share_left(layers[name], strength))
            if bits > MOST_BITS:
                continue
            generator = torch.Generator().manual_seed(run.seed)
            book = cluster(layers[name].weight, 2**bits, self.start, generator)
            if size_of(book).bits >= VALUE_BITS * book.codes.numel():
                left[name] = f"a codebook of {bits} bits would not make its {book.codes.numel()} weights smaller"
                continue
            with torch.no_grad():
                layers[name].weight.copy_(book.decoded())
            layers[name].register_buffer(CODES, book.codes.to(torch.int16), persistent=False)
        tell_left(run, {name: reason for name, reason in left.items() if only in (None, name)})
        run.model = model

    def callbacks(self, run: Run) -> list[Any]:
        """Trains centroids instead of weights."""
        from bigopt_plugins.compression._callbacks import ShareValues

        pairs = [(module.weight, codes.long()) for module, codes in _shared(run.model).values()]
        return [ShareValues(pairs)] if pairs else []

    def finish(self, run: Run, fit: Fit) -> None:
        """Leaves a plain model, whose weights later steps keep shared, and counts its bits."""
        names = tuple(f"{name}.weight" for name in _shared(run.model))
        for module, _ in _shared(run.model).values():
            delattr(module, CODES)
        release(run.model)
        _tell(run, names)
        if names:
            run.parts.append(KeepShared(names))

    def _bits(self, layer: nn.Module, share: float) -> int:
        """Bits of a layer's codes when this share of 32 bits is left."""
        bits = round(VALUE_BITS * share)
        if isinstance(layer, CONVOLUTIONS) and self.conv_bits is not None and bits <= MOST_BITS:
            bits = min(MOST_BITS, bits + self.conv_bits - self.width)
        return max(1, bits)


class KeepShared(Part):
    """Joins ``run.parts`` when weights are shared, so that later steps train the centroids, too.

    Args:
        parameters: names of the weights; those that a later step replaced are passed over.
    """

    def __init__(self, parameters: tuple[str, ...]) -> None:
        self.parameters = parameters

    def callbacks(self, run: Run) -> list[Any]:
        """Ties whatever is equal in the named weights when the fit starts."""
        from bigopt_plugins.compression._callbacks import ShareValues

        present = dict(run.model.named_parameters())
        books = {name: codebook_of(present[name], 2**MOST_BITS + 1) for name in self.parameters if name in present}
        pairs = [(present[name], book.codes) for name, book in books.items() if book is not None]
        return [ShareValues(pairs)] if pairs else []


def _shared(model: nn.Module) -> dict[str, tuple[Any, Any]]:
    """Modules whose weights share values, with the codes."""
    return {
        name: (module, module._buffers[CODES]) for name, module in model.named_modules() if CODES in module._buffers
    }


def _tell(run: Run, names: Sequence[str]) -> None:
    """Counts what has to be stored, from the weights as they are."""
    state = {name: t for name, t in run.model.state_dict().items() if t.is_floating_point()}
    books = {name: codebook_of(state[name], 2**MOST_BITS + 1) for name in names}
    sizes = {name: size_of(book) for name, book in books.items() if book is not None}
    if not sizes:
        run.report.note("no weights were shared: no layer would become smaller")
        return
    dense = VALUE_BITS * sum(t.numel() for t in state.values())
    rest = dense - VALUE_BITS * sum(size.entries for size in sizes.values())
    total = rest + sum(size.bits for size in sizes.values())
    run.report.table("weight_sharing", [{"layer": n.removesuffix(".weight")} | asdict(s) for n, s in sizes.items()])
    entropy_coded = {
        "huffman_bits": sum(size.huffman_bits for size in sizes.values()),
        "codebook_bits": sum(size.codebook_bits for size in sizes.values()),
        "table_bits": sum(size.table_bits for size in sizes.values()),
        "rest_bits": rest,
        "bytes": math.ceil(total / 8),
        "dense_bytes": dense // 8,
        "ratio": dense / total,
    }
    run.report.value("entropy_coded", entropy_coded)
    run.report.note(
        f"entropy-coded, the model takes {entropy_coded['bytes']:,} bytes instead of {dense // 8:,} (codes, centroids "
        "and code lengths; what is not shared in 32 bits); the file holds the shared values in float: it compresses, "
        "while its bytes and the latency stay"
    )
