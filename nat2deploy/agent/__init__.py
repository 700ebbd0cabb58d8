"""What measures on an edge device: Python 3.9, numpy and onnxruntime, nothing else."""
