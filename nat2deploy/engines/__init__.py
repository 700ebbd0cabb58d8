"""One file a backend: compile a module for a target, run it, save and load it."""
