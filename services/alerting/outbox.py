"""The messages on their way: groups that gather, jobs that are tried until they have ended. All of it stands in Redis.

A group is of one entry, route, receiver, purpose and values of ``group_by``. It gathers alerts, then becomes a job: one
message. Whoever works on a group holds a lease on it, so two replicas never send one job at once, and another takes over
where the holder was killed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

import msgspec
from msgspec.structs import replace
from penstock.contracts.records import Alert, Severity

from services.alerting.groups import (
    Ending,
    Entry,
    Group,
    Held,
    Job,
    Lease,
    composed,
    entry_of,
    fresh_group,
    overflowing,
    reduced,
    retried,
    summary_of,
    tried,
    withheld,
)
from services.alerting.incidents import Settled, Tell, rank, settle
from services.alerting.register import Register
from services.alerting.routing import Plan
from services.alerting.store import Keys, Transaction

__all__ = ["Outbox"]

_HOUR = timedelta(hours=1)
_WEEK_S = 7 * 86_400
_KEPT_S = 2 * _WEEK_S
_AT_ONCE = 1000
"""Most alerts that are put aside at once: they stand in one value."""
_SETTLED_AT_ONCE = 10
"""Incidents that one transaction settles: with more, alerts that keep coming for them would keep it from ever ending."""
_SUMMARY_S = 10.0
"""Least time that a summary gathers."""


class _Progress(msgspec.Struct, frozen=True):
    settled: int = 0


class Outbox:
    """Every change to the groups, each one transaction."""

    def __init__(self, register: Register, group_most: int) -> None:
        """Create the outbox.

        Args:
            register: the incidents, and where their alerts go.
            group_most: most alerts of one message.
        """
        self._register = register
        self._most = group_most

    async def queue(
        self,
        transaction: Transaction,
        tells: Iterable[tuple[Plan, Tell]],
        now: datetime,
        loaded: Group | None = None,
    ) -> int:
        """Put messages into their groups; return how many went into ``loaded``, which the caller writes."""
        gathered: dict[str, tuple[Group, list[Entry]]] = {}
        for plan, tell in tells:
            fresh = fresh_group(plan, tell)
            identity = fresh.group_id
            if identity not in gathered:
                own = loaded is not None and loaded.group_id == identity
                group = loaded if own else await transaction.load(Group, Keys.group(identity))
                if group is None:
                    group = fresh
                elif not group.busy:
                    group = replace(fresh, sent_at=group.sent_at)
                gathered[identity] = (group, [])
            gathered[identity][1].append(entry_of(plan, tell, now))
        own_count = 0
        for identity, (group, entries) in gathered.items():
            transaction.push(Keys.entries(identity), entries)
            if loaded is not None and loaded.group_id == identity:
                own_count = len(entries)
            elif not group.busy:
                self._open(transaction, group, entries, now)
            elif group.job is None and await transaction.length(Keys.entries(identity)) + len(entries) >= self._most:
                transaction.schedule(Keys.due(group.key), identity, now)
        return own_count

    def _open(self, transaction: Transaction, group: Group, entries: Sequence[Entry], now: datetime) -> None:
        due = now + timedelta(seconds=group.wait_s)
        if group.sent_at is not None:
            due = max(due, group.sent_at + timedelta(seconds=group.interval_s))
        if len(entries) >= self._most:
            due = now
        transaction.put(Keys.group(group.group_id), replace(group, busy=True), _KEPT_S)
        transaction.schedule(Keys.due(group.key), group.group_id, due)
        transaction.schedule(Keys.waiting(group.key), group.group_id, entries[0].queued_at)
        transaction.join(Keys.RECEIVERS, group.key)

    async def claim(self, identity: str, key: str, holder: str, lease_s: float, now: datetime) -> Group | None:
        """Take a group whose time has come; return it with its job, or ``None`` where there is nothing to do.

        Where the job has an ending, that is to be recorded; else it is to be sent.
        """

        async def body(transaction: Transaction) -> Group | None:
            group = await transaction.load(Group, Keys.group(identity))
            if group is None or not group.busy:
                self._forget(transaction, identity, key)
                return None
            if group.lease is not None and group.lease.until > now and group.lease.holder != holder:
                transaction.schedule(Keys.due(key), identity, group.lease.until)
                return None
            if group.job is None:
                group = await self._compose(transaction, group, now)
                if group is None:
                    return None
            assert group.job is not None
            if group.job.ending is None:
                job = await self._checked(transaction, group, group.job, now)
                group = replace(group, job=job)
                if job.entries and job.attempts == 0 and not group.summary:
                    transaction.forget_before(Keys.rate(key), now - _HOUR)
                    transaction.schedule(Keys.rate(key), job.notification_id, now)
            until = now + timedelta(seconds=lease_s)
            group = replace(group, lease=Lease(holder, until))
            transaction.put(Keys.group(identity), group, _KEPT_S)
            transaction.schedule(Keys.due(key), identity, until)
            return group

        return await self._register.store.run(body)

    def _forget(self, transaction: Transaction, identity: str, key: str) -> None:
        transaction.unschedule(Keys.due(key), identity)
        transaction.unschedule(Keys.waiting(key), identity)

    def _rest(self, transaction: Transaction, group: Group) -> None:
        """Keep a group that has nothing to do for as long as the time of its last message counts."""
        ttl_s = max(group.interval_s, _HOUR.total_seconds())
        transaction.put(Keys.group(group.group_id), replace(group, busy=False), ttl_s)

    async def _compose(self, transaction: Transaction, group: Group, now: datetime) -> Group | None:
        """Make a job of what has gathered; where the hour's messages are used up, it goes into the summary."""
        key, identity = group.key, group.group_id
        made = await transaction.scores(Keys.rate(key), (now - _HOUR).timestamp() * 1000)
        over = len(made) >= group.most_per_hour and not group.summary
        # More than one message names, so that what is over the rate is put aside quickly, but no more than one value holds.
        most = max(self._most, _AT_ONCE) if over or group.summary else self._most
        entries = await self._head(transaction, identity, most)
        if not entries and not group.gravest:
            self._forget(transaction, identity, key)
            self._rest(transaction, replace(group, lease=None))
            return None
        transaction.skip(Keys.entries(identity), len(entries))
        # The same by its identity: told once.
        more = len(entries) == most and await transaction.length(Keys.entries(identity)) > most
        entries = list({entry.entry_id: entry for entry in [*group.gravest, *entries]}.values())
        if group.summary and more:
            return reduced(group, entries, self._most, now)
        # What is critical does not wait behind the rest: it has as many messages for itself.
        grave = any(rank(entry.alert.severity) >= rank(Severity.CRITICAL) for entry in entries)
        if not over or (grave and len(made) < 2 * group.most_per_hour):
            return composed(group, entries, self._most, now)
        fresh = summary_of(group)
        summary = await transaction.load(Group, Keys.group(fresh.group_id)) or fresh
        due = now + timedelta(seconds=max(group.interval_s, _SUMMARY_S))
        if summary.sent_at is not None:
            due = max(due, summary.sent_at + _HOUR)
        transaction.push(Keys.entries(summary.group_id), entries)
        if not summary.busy:
            transaction.put(Keys.group(summary.group_id), replace(summary, busy=True), _KEPT_S)
            transaction.schedule(Keys.due(key), summary.group_id, due)
            transaction.schedule(Keys.waiting(key), summary.group_id, entries[0].queued_at)
        return overflowing(group, entries, due, now)

    async def _head(self, transaction: Transaction, identity: str, most: int) -> list[Entry]:
        """Return the first of what has gathered.

        Others only append, and only whoever has the group, which is watched, removes: what comes meanwhile is no reason to
        run again, or a flood of alerts would keep a group from ever being sent. That nothing has gathered must hold to
        the end.
        """
        key = Keys.entries(identity)
        return await transaction.listed(Entry, key, most, watched=False) or await transaction.listed(Entry, key, most)

    async def _checked(self, transaction: Transaction, group: Group, job: Job, now: datetime) -> Job:
        """Take back what was acknowledged, silenced or, where it was only to be repeated, resolved meanwhile."""
        incidents = await self._register.incidents(transaction, [entry.alert.fingerprint for entry in job.entries])
        silences = await self._register.silences(transaction)
        kept: list[Entry] = []
        held: list[Held] = []
        for entry in job.entries:
            reason = withheld(incidents.get(entry.alert.fingerprint), group.purpose, silences, now)
            if reason is None:
                kept.append(entry)
            else:
                held.append(Held(entry, "withheld", reason, now))
        ending = None if kept else Ending("withheld", now)
        return replace(job, entries=tuple(kept), held=(*job.held, *held), ending=ending)

    async def note(self, group: Group, lease: Lease | None, record_s: float, now: datetime) -> Group | None:
        """Note how a try ended; return the group, or ``None`` where another has noted an ending, or tries itself.

        Args:
            group: with the ending in its job, and the try counted.
            lease: under which the try was made.
            record_s: time in which the ending is recorded; after it another replica does so.
        """
        job = group.job
        assert job is not None
        assert job.ending is not None
        until = now + timedelta(seconds=record_s)

        async def body(transaction: Transaction) -> Group | None:
            found = await transaction.load(Group, Keys.group(group.group_id))
            if found is None or not tried(found, job):
                return None
            # Whoever was too slow has lost the group to another; but what was delivered is delivered.
            if found.lease != lease and job.ending is not None and job.ending.outcome != "delivered":
                return None
            after = replace(found, job=job, lease=Lease(lease.holder if lease else "", until))
            transaction.put(Keys.group(group.group_id), after, _KEPT_S)
            transaction.schedule(Keys.due(group.key), group.group_id, until)
            return after

        return await self._register.store.run(body)

    async def finish(self, group: Group, now: datetime) -> None:
        """Take what was recorded into account: the job is done, or waits for its next try."""
        job = group.job
        assert job is not None
        assert job.ending is not None
        ending = job.ending
        settled: list[tuple[Alert, Settled]] = [
            (held.entry.alert, held.outcome) for held in job.held if held.outcome != "waits"
        ]
        if ending.outcome != "failed":
            outcome: Settled = "dead" if ending.outcome == "dead" else "delivered"
            settled += [(entry.alert, outcome) for entry in job.entries]
        progress = Keys.progress(group.group_id)

        async def body(transaction: Transaction) -> bool:
            found = await transaction.load(Group, Keys.group(group.group_id))
            if found is None or found.job is None or found.job.ending != ending:
                return True
            done = (await transaction.load(_Progress, progress) or _Progress()).settled
            piece = settled[done : done + _SETTLED_AT_ONCE]
            if done + len(piece) < len(settled):
                await self._settle(transaction, found, piece, now)
                transaction.put(progress, _Progress(done + len(piece)), _KEPT_S)
                return False
            transaction.delete(progress)
            if ending.outcome == "failed":
                again = retried(found)
                transaction.put(Keys.group(again.group_id), again, _KEPT_S)
                transaction.schedule(Keys.due(group.key), again.group_id, ending.next_try_at or now)
                transaction.schedule(Keys.waiting(group.key), again.group_id, job.entries[0].queued_at)
            after = replace(found, job=None, lease=None, sent_at=now if job.entries else found.sent_at)
            added = await self._settle(transaction, after, piece, now)
            if found.retries:
                if ending.outcome != "failed":
                    self._forget(transaction, group.group_id, group.key)
                    transaction.delete(Keys.group(group.group_id))
                return True
            due = await self._next(transaction, after, added, now)
            if due is None:
                self._forget(transaction, group.group_id, group.key)
                self._rest(transaction, after)
            else:
                transaction.schedule(Keys.due(group.key), group.group_id, now if job.more else due)
                transaction.put(Keys.group(group.group_id), after, _KEPT_S)
            return True

        while not await self._register.store.run(body):
            pass

    async def _settle(
        self, transaction: Transaction, group: Group, settled: Sequence[tuple[Alert, Settled]], now: datetime
    ) -> int:
        """Tell the incidents how their messages ended, and queue what follows; return how much of it goes into ``group``."""
        if not settled:
            return 0
        incidents = await self._register.incidents(transaction, [alert.fingerprint for alert, _ in settled])
        silences = await self._register.silences(transaction)
        for alert, outcome in settled:
            if (incident := incidents.get(alert.fingerprint)) is not None:
                incidents[alert.fingerprint] = settle(
                    incident, group.receiver, alert.event_id, group.purpose, outcome, now
                )
        tells: list[tuple[Plan, Tell]] = []
        for incident in incidents.values():
            more, _ = self._register.proceed(transaction, incident, silences, now)
            tells += more
        return await self.queue(transaction, tells, now, group)

    async def _next(self, transaction: Transaction, group: Group, added: int, now: datetime) -> datetime | None:
        """Return when the group makes its next job, if something waits for that."""
        waiting = await self._head(transaction, group.group_id, 1)
        if not waiting and not added:
            return None
        transaction.schedule(Keys.waiting(group.key), group.group_id, waiting[0].queued_at if waiting else now)
        return now + (_HOUR if group.summary else timedelta(seconds=group.interval_s))
