"""Faults injected into a small whole pipeline: one line says so, and it goes on to the same result."""
