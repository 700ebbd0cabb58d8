"""The command line: parse, call, render. No logic, and heavy imports inside the commands."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command line; bad input gives one line on stderr and exit code 2."""
    try:
        from nat2deploy.cli.app import main as run

        run()
    except KeyboardInterrupt:  # while its modules load, or again while the first one is told
        raise SystemExit(130) from None
