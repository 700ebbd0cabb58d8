"""The program that travels in every bundle; it imports nothing of this package."""
