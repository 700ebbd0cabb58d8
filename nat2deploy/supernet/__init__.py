"""Weights that can be sliced: the elastic layers, the super-network and its checkpoints."""
