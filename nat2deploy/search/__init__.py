"""The NAT2 search: archive, surrogate, evolution, adaptation, budgets."""
