"""Random pruning of units and of whole modules."""
