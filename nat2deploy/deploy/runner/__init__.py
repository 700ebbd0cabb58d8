"""The program that travels in every bundle, as run.py and the folder runner; it stands alone there."""
