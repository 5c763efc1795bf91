"""Sparse representations of weights by a Gaussian function under an operator."""
