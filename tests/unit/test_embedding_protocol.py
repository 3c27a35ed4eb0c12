"""Vectors on the wire, and windows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.embedding import EmbedderError, pack_vector, unpack_vector
from penstock.embedding.windows import Windows, even_windows, mean_of_windows, unit_rows


@given(st.lists(st.floats(width=32, allow_nan=False), max_size=50))
def test_a_vector_survives_the_wire(values: list[float]) -> None:
    vector = np.array(values, np.float32)
    np.testing.assert_array_equal(unpack_vector(pack_vector(vector), len(values)), vector)


def test_the_wire_form_is_little_endian_float32() -> None:
    assert pack_vector(np.array([1.0, -2.0], np.float32)) == bytes.fromhex("0000803f000000c0")


@pytest.mark.parametrize(("data", "dimension"), [(b"123", None), (b"\0" * 8, 3)])
def test_a_vector_of_the_wrong_length_is_refused(data: bytes, dimension: int | None) -> None:
    with pytest.raises(ValueError, match="another model"):
        unpack_vector(data, dimension)


@given(st.integers(0, 5000), st.integers(1, 300))
def test_windows_cover_everything_once_and_evenly(length: int, most: int) -> None:
    windows = even_windows(length, most)
    sizes = [end - start for start, end in windows]
    assert [index for start, end in windows for index in range(start, end)] == list(range(length))
    assert max(sizes) <= most
    assert max(sizes) - min(sizes) <= 1
    assert len(windows) == max(1, -(-length // most))


def test_the_mean_of_windows_is_normalised_per_text() -> None:
    vectors = np.eye(3, dtype=np.float32)
    means = mean_of_windows(vectors, [2, 1])
    np.testing.assert_allclose(means, [[2**-0.5, 2**-0.5, 0], [0, 0, 1]], atol=1e-6)


def test_texts_are_cut_into_windows_and_put_together_again_one_by_one() -> None:
    windows = Windows.of(["a b", "c\ud800", "d e f"], str.split)
    assert (windows.parts, windows.counts) == (("a", "b", "c\ufffd", "d", "e", "f"), (2, 1, 3))
    assert windows.sums([1, 2, 3, 4, 5, 6]) == (3, 3, 15)
    rows = np.eye(6, dtype=np.float32)
    np.testing.assert_array_equal(windows.mean(rows), mean_of_windows(rows, [2, 1, 3]))


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")], ids=["zero", "nan", "infinite"])
def test_a_vector_without_direction_is_an_error_of_whoever_made_it(value: float) -> None:
    with pytest.raises(EmbedderError, match="the model gives a vector without direction"):
        unit_rows(np.array([[1.0, 0.0], [value, 0.0]], np.float32), "the model")
