"""No transfer: train from the weights that the model starts with."""

from __future__ import annotations

from bigopt.vocabulary.part import Part


class NoTransfer(Part):
    """Trains on the labels alone."""
