"""Structured sparsity by group lasso and prior knowledge."""
