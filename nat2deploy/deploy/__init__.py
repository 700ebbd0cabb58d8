"""ONNX bundles for the device: export, runner, verification and bench."""
