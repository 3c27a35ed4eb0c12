"""Retrieval finds what answers: a regression test on the development questions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.bench.bench_retrieval import measure


@pytest.mark.data
def test_the_passage_that_answers_comes_first(data: Path) -> None:
    found = measure(data)
    service = found.ranks["service"]
    assert np.mean(service == 1) >= 0.96
    assert np.mean(1 / service) >= 0.98
    for part in ("embeddings", "words", "rank fusion", "bm25s"):
        assert np.mean(1 / service) > np.mean(1 / found.ranks[part]), f"{part} alone orders better"
    # The default floor of routes: what answers passes it, most of what does not is kept out.
    assert np.mean(found.best >= 0.25) >= 0.97
    assert np.mean(found.unrelated >= 0.25) <= 0.15
