"""The scanners: each a pure judge of one text."""
