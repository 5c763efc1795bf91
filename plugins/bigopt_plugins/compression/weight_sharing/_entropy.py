"""How many bits a weight of shared values takes, as Deep Compression stores it; exact, nothing is estimated."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from bigopt_plugins.compression.weight_sharing._kmeans import Codebook

VALUE_BITS = 32
"""Of a centroid, and of everything that is not shared."""

LENGTH_BITS = 8
"""Of a symbol's code length; a canonical Huffman code is known by its lengths."""

GAP_BITS = 5
"""Of the distance between two non-zeros before coding; longer ones take filler zeros (Han et al. 2016, §2)."""


@dataclass(frozen=True)
class Size:
    """Bits of one weight.

    Attributes:
        entries: number of entries.
        index_bits: of codes of fixed width.
        huffman_bits: of Huffman-coded entries.
        codebook_bits: of the centroids.
        table_bits: of the Huffman codes' lengths.
        entropy: ``Σ -p log2 p`` of the symbols, bits per entry; no prefix code of single entries takes less.
        layout: ``dense`` codes every entry; ``sparse`` codes non-zeros and the gaps between them.
    """

    entries: int
    index_bits: int
    huffman_bits: int
    codebook_bits: int
    table_bits: int
    entropy: float
    layout: Literal["dense", "sparse"]

    @property
    def bits(self) -> int:
        """All that has to be stored."""
        return self.huffman_bits + self.codebook_bits + self.table_bits


def size_of(book: Codebook) -> Size:
    """The smaller of the dense and the sparse layout."""
    codes = book.codes.reshape(-1).cpu()
    counts = torch.bincount(codes, minlength=len(book.values))
    streams: dict[Literal["dense", "sparse"], list[Tensor]] = {"dense": [counts]}
    if 0 < int(counts[0]) < len(codes):
        streams["sparse"] = _sparse(codes)
    sizes = [_size(len(codes), counts, layout, histograms) for layout, histograms in streams.items()]
    return min(sizes, key=lambda size: size.bits)


def code_lengths(counts: Sequence[int]) -> list[int]:
    """Length of each symbol's Huffman code (Huffman 1952); 0 for symbols that do not occur, 1 for a single one."""
    lengths = [0] * len(counts)
    heap = [(count, symbol, [symbol]) for symbol, count in enumerate(counts) if count]
    if len(heap) == 1:
        lengths[heap[0][1]] = 1
    heapq.heapify(heap)
    while len(heap) > 1:
        one, two = heapq.heappop(heap), heapq.heappop(heap)
        for symbol in one[2] + two[2]:
            lengths[symbol] += 1
        heapq.heappush(heap, (one[0] + two[0], min(one[1], two[1]), one[2] + two[2]))
    return lengths


def _size(entries: int, counts: Tensor, layout: Literal["dense", "sparse"], streams: list[Tensor]) -> Size:
    present = int((counts > 0).sum())
    huffman = symbols = 0
    for histogram in streams:
        occurring = histogram.tolist()
        huffman += sum(count * length for count, length in zip(occurring, code_lengths(occurring), strict=True))
        symbols += sum(count > 0 for count in occurring)
    shares = counts[counts > 0].double() / max(1, entries)
    return Size(
        entries=entries,
        index_bits=entries * max(1, (present - 1).bit_length()),
        huffman_bits=huffman,
        codebook_bits=VALUE_BITS * int((counts[1:] > 0).sum()),
        table_bits=LENGTH_BITS * symbols,
        entropy=float(-(shares * shares.log2()).sum()),
        layout=layout,
    )


def _sparse(codes: Tensor) -> list[Tensor]:
    """Histograms of the gaps and of the values of the stored entries: non-zeros, and fillers in long gaps."""
    places = codes.nonzero().reshape(-1)
    gaps = torch.diff(places, prepend=places.new_tensor([-1])) - 1
    longest = 2**GAP_BITS - 1
    fillers = gaps // (longest + 1)  # each filler is a stored zero behind a gap of the largest length
    rest = gaps - fillers * (longest + 1)
    gap_counts = torch.bincount(rest, minlength=longest + 1)
    gap_counts[longest] += fillers.sum()
    value_counts = torch.bincount(codes[places])
    value_counts[0] = fillers.sum()
    return [gap_counts, value_counts]
