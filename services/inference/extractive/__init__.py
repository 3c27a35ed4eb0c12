"""The embedded model: answers with the sentences of the attached passages that answer the question best. Pure.

It generates nothing: every sentence of an answer stands in a passage, so it cannot invent. Where no sentence is likely
enough to answer, it says that it found nothing rather than guess.
"""

from services.inference.extractive.choice import MODEL, NOTHING_FOUND, Answer, answer
from services.inference.extractive.reading import count_tokens

__all__ = ["MODEL", "NOTHING_FOUND", "Answer", "answer", "count_tokens"]
