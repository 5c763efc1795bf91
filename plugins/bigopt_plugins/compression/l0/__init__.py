"""Sparsity by counting: hard-concrete gates, and projections onto balls."""
