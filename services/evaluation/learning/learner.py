"""What a classifier must be to learn online here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

__all__ = ["Learner"]

W = TypeVar("W")


class Learner(Protocol[W]):
    """A classifier of which one label at a time moves the weights. Pure: weights are values and never changed in place.

    What bounds the influence of a label holds for a gradient step on the logistic loss: a step of ``rate`` moves the
    log-odds of no text by more than ``rate * reach``, and two sets of weights that take the same step come no further apart
    by it (Hardt, Recht and Singer, 2016, "Train faster, generalize better", lemma 3.6, for rates up to ``8 / reach``).
    """

    @property
    def name(self) -> str:
        """Name of the classifier, which labels and commands are keyed by."""
        ...

    @property
    def version(self) -> str:
        """Version of the shipped weights, which all that is learned are differences to."""
        ...

    @property
    def features_version(self) -> str:
        """Version of the features that it reads."""
        ...

    @property
    def labels(self) -> Mapping[str, bool]:
        """Whether each label says that the text is of the class."""
        ...

    @property
    def reach(self) -> float:
        """Largest inner product of the features of two texts, the intercept's included."""
        ...

    @property
    def format(self) -> str:
        """How packed weights are laid out."""
        ...

    def shipped(self) -> W:
        """Return the weights as shipped."""
        ...

    def shape(self, weights: W) -> Sequence[int]:
        """Return the shape of packed weights."""
        ...

    def score(self, features: bytes, weights: W) -> float:
        """Return the chance of the class, from 0 to 1.

        Raises:
            ValueError: these are no features of ``features_version``.
        """
        ...

    def learn(self, features: bytes, weights: W, positive: bool, rate: float) -> W:
        """Return the weights after one step on a labelled text, as they come back from :meth:`pack` and :meth:`unpack`.

        Raises:
            ValueError: these are no features of ``features_version``.
        """
        ...

    def pack(self, weights: W) -> bytes:
        """Return the weights as bytes: equal bytes for equal weights."""
        ...

    def unpack(self, packed: bytes) -> W:
        """Return the weights in ``packed``. Nothing in there is executed.

        Raises:
            ValueError: length, order or range are not those of packed weights, or a number is not finite.
        """
        ...
