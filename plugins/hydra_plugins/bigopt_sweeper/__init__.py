"""Hydra plugins of bigopt."""
