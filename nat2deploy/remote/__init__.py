"""Measuring on a device that has only Python, numpy and onnxruntime: through ssh, or by a kit."""
