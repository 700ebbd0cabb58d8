"""Progressive shrinking, adaptation, BN recalibration and fine-tuning."""
