"""Sampling parameters as a command line gives them."""

from __future__ import annotations

import click
import pytest
from penstock.cli.generation import named, sampling_of
from penstock.contracts.records import Sampling


def test_parameters_are_read_as_what_they_are() -> None:
    options = [
        "temperature=0",
        "n=3",
        "top_logprobs=5",
        "stop=42",
        "regex=[0-9]+",
        'response_format={"type": "object"}',
    ]
    assert sampling_of(dict(map(named, options))) == Sampling(
        temperature=0.0, n=3, top_logprobs=5, stop=["42"], regex="[0-9]+", response_format='{"type": "object"}'
    )
    assert sampling_of(dict([named('stop=["a", "b"]')])).stop == ["a", "b"]
    assert sampling_of({}) == Sampling()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["temprature=0"], "no parameter 'temprature'; there are: temperature"),
        (["temperature=warm"], "float.*temperature"),
        (["n=1.5"], "int"),
        (["temperature"], "no NAME=VALUE"),
        (["=1"], "no NAME=VALUE"),
    ],
)
def test_what_is_no_parameter_is_named(options: list[str], words: str) -> None:
    with pytest.raises(click.ClickException, match=words):
        sampling_of(dict(map(named, options)))


def test_parameters_of_a_file_must_be_an_object() -> None:
    with pytest.raises(click.ClickException, match="object"):
        sampling_of([1])
