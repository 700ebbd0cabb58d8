"""Latency tables, their calibration and certificate, and the costs that a search asks for."""
