"""Helpers for dataset plugins, the batch iterator, and the checks that every dataset passes."""

from bigopt.data.assemble import assemble, divide
from bigopt.data.batches import batch_count, batches, epoch_order
from bigopt.data.check import check_data, check_kind, check_labels
from bigopt.data.fingerprint import fingerprint
from bigopt.data.labels import has_labels, hide_labels, limit_labels, limit_samples
from bigopt.data.normalization import fit_normalization
from bigopt.data.resize import resize_for
from bigopt.data.split import generator, refuse_empty, split_indices, subset
from bigopt.data.stream import StreamSplit

__all__ = [
    "StreamSplit",
    "assemble",
    "batch_count",
    "batches",
    "check_data",
    "check_kind",
    "check_labels",
    "divide",
    "epoch_order",
    "fingerprint",
    "fit_normalization",
    "generator",
    "has_labels",
    "hide_labels",
    "limit_labels",
    "limit_samples",
    "refuse_empty",
    "resize_for",
    "split_indices",
    "subset",
]
