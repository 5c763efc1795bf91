"""Quantization: one private file a method behind one plugin."""
