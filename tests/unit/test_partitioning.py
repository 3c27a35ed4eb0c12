"""Keys and their partitions, as Kafka's producers decide."""

from __future__ import annotations

import pytest
from aiokafka.partitioner import DefaultPartitioner
from hypothesis import given
from hypothesis import strategies as st
from penstock.bus.partitioning import key_in, partition_of


@given(st.text(st.characters(codec="utf-8"), min_size=1), st.integers(1, 64))
def test_a_key_falls_where_the_producer_puts_it(key: str, partitions: int) -> None:
    assert partition_of(key, partitions) == DefaultPartitioner()(key.encode(), list(range(partitions)), [])


@given(st.text(st.characters(codec="utf-8"), max_size=20), st.integers(1, 64), st.data())
def test_a_key_is_found_for_every_partition(prefix: str, partitions: int, data: st.DataObject) -> None:
    partition = data.draw(st.integers(0, partitions - 1))
    key = key_in(partition, prefix, partitions)
    assert key.startswith(prefix)
    assert partition_of(key, partitions) == partition
    assert key == key_in(partition, prefix, partitions)


@pytest.mark.parametrize("partition", [-1, 4])
def test_a_partition_that_is_none_has_no_key(partition: int) -> None:
    with pytest.raises(ValueError, match="none of 4"):
        key_in(partition, "k", 4)
