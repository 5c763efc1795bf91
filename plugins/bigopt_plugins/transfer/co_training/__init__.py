"""Two models that learn from the same data and from each other."""
