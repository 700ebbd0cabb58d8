"""What can be chosen: search spaces, architectures, encodings, block signatures and counts."""
