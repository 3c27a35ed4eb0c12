"""The library every Penstock service stands on, and the SDK its producers and consumers use."""

__version__ = "0.1.0"
