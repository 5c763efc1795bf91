"""Normalisation layers of a model: inserted, removed, swapped, frozen."""
