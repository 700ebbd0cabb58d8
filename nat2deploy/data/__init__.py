"""Data sets as tensors with train, validation and test splits."""
