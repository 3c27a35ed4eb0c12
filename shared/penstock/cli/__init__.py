"""The command line: ``penstock``."""
