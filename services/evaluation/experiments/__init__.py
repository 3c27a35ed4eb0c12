"""Experiments on live traffic: what each event says of them, and tests that hold however often they are looked at."""
