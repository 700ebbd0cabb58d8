"""Runs: the front door of each stage, and the whole way from profile to a verified bundle."""
