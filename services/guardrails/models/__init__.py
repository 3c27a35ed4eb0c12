"""Weights of the injection classifiers, and the scripts that make them."""
