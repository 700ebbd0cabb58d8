"""``python -m nat2deploy``."""

from nat2deploy.cli import main

if __name__ == "__main__":
    main()
