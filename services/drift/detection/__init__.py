"""The detectors: of numbers, of categories and of vectors, and what they share. Pure."""
