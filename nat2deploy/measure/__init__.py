"""The clock: statistics of a measurement, whole networks, and blocks."""
