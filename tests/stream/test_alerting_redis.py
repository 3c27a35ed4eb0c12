"""The courses of the dispatcher's unit tests once more, on a real Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import pytest
from penstock.config.alerting import Alerting
from penstock.contracts.catalogue import Catalogue
from redis.asyncio import Redis

from services.alerting.redis_store import RedisStore
from tests.unit.alerting_fakes import Platform, PlatformOf
from tests.unit.test_alerting_dispatch import (  # noqa: F401
    test_a_hundred_alerts_of_a_group_are_one_message_and_the_next_waits_for_the_interval,
    test_a_message_read_again_gives_the_same_records_and_changes_nothing,
    test_a_message_that_fails_holds_up_none_that_follow_on_it,
    test_a_receiver_that_cannot_be_opened_is_told_of_to_the_others,
    test_a_receiver_that_fails_for_hours_gets_it_in_the_end_and_only_once,
    test_a_receiver_that_hangs_holds_up_nobody_else,
    test_another_replica_takes_over_what_a_killed_one_was_sending,
    test_two_replicas_send_nothing_twice,
    test_what_is_given_up_is_a_dead_letter_that_a_replay_delivers,
    test_what_is_over_the_rate_is_told_in_one_summary,
    test_what_was_acknowledged_but_not_recorded_is_recorded_and_not_sent_again,
)
from tests.unit.test_alerting_dispatch_time import (  # noqa: F401
    test_a_silence_holds_back_and_what_still_fires_is_told_when_it_ends,
    test_a_silence_that_is_ended_early_lets_through_at_once,
    test_an_acknowledgement_ends_retries_escalation_and_repeats,
    test_nobody_answers_and_the_next_is_called_in_steps,
)


@pytest.fixture
async def platform_of(deployed: Mapping[str, str], catalogue: Catalogue) -> AsyncIterator[PlatformOf]:
    """On Redis, without what alerting knew before and after: whoever runs it next rebuilds that."""
    async with Redis.from_url(deployed["REDIS_URL"]) as redis:
        store = RedisStore(redis)
        await store.clear()
        await store.open()

        def made(entry: Alerting) -> Platform:
            return Platform(catalogue, entry, store)

        yield made
        await store.clear()
