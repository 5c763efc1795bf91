"""Unsupervised domain adaptation, one private file a method."""
