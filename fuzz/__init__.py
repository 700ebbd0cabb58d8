"""Damaged and odd input for every file format and parser: what is wrong with it is refused in words."""
