"""Data augmentation of whole batches: images, mixed samples, texts."""
