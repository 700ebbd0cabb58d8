"""What can be a seed."""

LARGEST_SEED = 2**63 - 1
"""PyTorch's generators take a little more; parts of a command add their number to it."""
