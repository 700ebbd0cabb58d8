"""The command line: parse, call, render. No logic, and heavy imports inside the commands."""

from nat2deploy.cli.app import main

__all__ = ["main"]
