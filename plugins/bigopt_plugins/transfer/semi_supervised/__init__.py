"""Semi-supervised learning: pseudo-labels, consistency, and adaptive thresholds."""
