"""Activations replaced by polynomials and staircases."""
