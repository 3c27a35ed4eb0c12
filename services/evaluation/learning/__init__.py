"""Classifiers that learn online from labels: a challenger learns beside a frozen champion, and takes over by its test."""

from services.evaluation.learning.champions import Champions, ChampionsError
from services.evaluation.learning.core import InvalidLabel, learning
from services.evaluation.learning.learner import Learner
from services.evaluation.learning.rules import LearningRules

__all__ = ["Champions", "ChampionsError", "InvalidLabel", "Learner", "LearningRules", "learning"]
