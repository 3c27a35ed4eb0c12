"""Money: amounts exact to 1e-12 USD, prices applied to calls, budgets and their windows. Pure; no service is imported.

Everything that prices, reserves or adds up uses these functions: admission (the worst case), evaluation (what a call
cost) and the ledger (the same again from the log).
"""

from penstock.money.amounts import PLACES, exact, from_pico, pico
from penstock.money.budgets import BUCKETS, Subject, Window, bucket_of, bucket_seconds, counter_key, subjects, window_of
from penstock.money.pricing import Amounts, charge, worst_case

__all__ = [
    "BUCKETS", "PLACES", "Amounts", "Subject", "Window", "bucket_of", "bucket_seconds", "charge", "counter_key", "exact",
    "from_pico", "pico", "subjects", "window_of", "worst_case",
]  # fmt: skip
