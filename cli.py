"""Run nat2deploy from a checkout: ``python cli.py --help``."""

from nat2deploy.cli import main

if __name__ == "__main__":
    main()
