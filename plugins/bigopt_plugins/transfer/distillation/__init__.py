"""Distillation: what a teacher knows, as answers, features, attention or relations; one private file a method."""
