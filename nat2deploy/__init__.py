"""nat2deploy: from a device and a data set to a verified, searched and optimised vision network."""

from nat2deploy.version import __version__

__all__ = ["__version__"]
