"""Every service of the flow as a process on the shared stack, and a stream of requests to disturb."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, TopicPartition
from penstock.audit import Verification
from penstock.bus import KafkaBus, Partition
from penstock.client import Client
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.codec import Codec
from penstock.contracts.records import LlmResult, Record, Verdict
from penstock.demo.observe import Observer
from penstock.demo.webhook import Receiver
from penstock.settings import KafkaSettings
from penstock.stack import Stack
from penstock.stack.member import Member, RestartPolicy
from penstock.stack.supervisor import FLOW, Supervisor, service_specs
from prometheus_client.parser import text_string_to_metric_families

TEAM = "research"
"""Without a limit of requests, and with a budget that is out of reach: nothing but the fault can end a request early."""

GROUPS: Mapping[str, tuple[str, ...]] = {
    "intake": ("llm-requests",),
    "guardrails-input": ("requests-admitted",),
    "retrieval-ground": ("requests-screened",),
    "inference": ("requests-grounded", "requests-repeated"),
    "guardrails-stream": ("completion-chunks",),
    "guardrails-release": ("completions", "refusals"),
}
"""The consumer groups that a request passes, and what each reads."""

IN_THE_WAY = ("intake", "guardrails", "retrieval", "inference")
"""The services that a request passes."""

PATH = ("llm-requests", "requests-admitted", "requests-screened", "requests-grounded", "completions", "llm-results")
"""The topics that a request passes when nothing ends it early."""

_READY_S = 150.0
_SESSION_MS = 6_000
"""When a consumer that was killed is missed: sooner than in production, and later than a busy machine lets one wait."""
# This machine may be busy with other things.
_PATIENCE_S = 120.0


class Stream:
    """Requests that are sent one after another while a test disturbs the services."""

    def __init__(self, flow: Flow) -> None:
        self.sent: list[str] = []
        self._flow = flow

    async def answered(self, more: int) -> None:
        """Wait until ``more`` of the requests have got their result since the call.

        Raises:
            AssertionError: they have not in time; the message says where each was seen last.
        """
        before = len(self._flow.results(self.sent))
        flows = await self._flow.observer.until(
            lambda: len(self._flow.results(self.sent)) >= before + more, timeout_s=_PATIENCE_S
        )
        assert flows, f"the stream stands still: {self._flow.missing(self.sent)}"


class Flow:
    """The running services with a client, an observer of every topic, and what happened to each process."""

    def __init__(
        self,
        supervisor: Supervisor,
        stack: Stack,
        bus: KafkaBus,
        codec: Codec,
        client: Client,
        observer: Observer,
        receiver: Receiver,
        happened: list[tuple[str, str]],
    ) -> None:
        self.supervisor = supervisor
        self.stack = stack
        self.bus = bus
        self.codec = codec
        self.client = client
        self.observer = observer
        self.happened = happened
        self.receiver = receiver

    @asynccontextmanager
    async def stream(self, rate: float = 25.0) -> AsyncIterator[Stream]:
        """Send requests at ``rate`` a second for as long as the block runs; a failed submit fails the test."""
        stream = Stream(self)
        run = uuid.uuid4().hex[:8]
        over = asyncio.Event()

        async def send() -> None:
            while not over.is_set():
                request_id = f"{run}-{len(stream.sent)}"
                stream.sent.append(request_id)
                await self.client.submit(
                    f"What is the weather in town {len(stream.sent)}?", tenant=TEAM, request_id=request_id
                )
                await _unless(over, 1 / rate)

        async with asyncio.TaskGroup() as group:
            group.create_task(send())
            try:
                yield stream
            finally:
                over.set()

    def results(self, sent: Iterable[str]) -> dict[str, set[str]]:
        """The event_ids of the results of those of ``sent`` that have one."""
        wanted = set(sent)
        found: dict[str, set[str]] = {}
        for result in self.observer.records("llm-results", LlmResult):
            if result.request_id in wanted:
                found.setdefault(result.request_id, set()).add(result.event_id)
        return found

    def missing(self, sent: Iterable[str]) -> dict[str, str]:
        """Where each of ``sent`` that has no result was seen last."""
        answered = self.results(sent)
        return {request_id: self.observer.last_seen(request_id) for request_id in sent if request_id not in answered}

    async def settled(self, sent: list[str]) -> None:
        """Wait until every one of ``sent`` is answered and nothing is under way; hold each to one event a topic, and
        each released answer to its verdict.

        Raises:
            AssertionError: a request was lost, a step made two different events of it, or one passed unjudged.
        """
        await self.observer.until(lambda: len(self.results(sent)) == len(sent), timeout_s=_PATIENCE_S)
        assert self.missing(sent) == {}
        await self.drained()
        wanted = set(sent)
        for topic in PATH:
            events = Counter(r.request_id for r in self.observer.records(topic, Record) if r.request_id in wanted)
            assert events == Counter(sent), f"{topic}: requests without exactly one event"
        statuses = {r.status for r in self.observer.records("llm-results", LlmResult) if r.request_id in wanted}
        assert statuses == {"completed"}
        verification = Verification()
        for verdict in self.observer.records("verdicts", Verdict):
            if verdict.request_id in wanted and verdict.stage == "input":
                wanted.discard(verdict.request_id)
        assert not wanted, f"admitted without a verdict: {sorted(wanted)[:5]}"
        for result in self.observer.records("llm-results", LlmResult):
            if result.request_id in events:
                verification.result(result, ("llm-results", 0, 0))
        for verdict in self.observer.records("verdicts", Verdict):
            verification.verdict(verdict)
        assert list(verification.faults()) == []

    async def drained(self) -> None:
        """Wait until every group of the flow has committed all that its topics hold, and the observer has seen it."""
        async with asyncio.timeout(_PATIENCE_S):
            while behind := await self._behind():
                self.lag = behind
                await asyncio.sleep(0.2)
        # What was emitted before the commits is in the log by now: one more result, sent and read, is behind it.
        marker = await self.client.submit("Is everything through?", tenant=TEAM)
        assert await self.observer.until(lambda: marker in self.results([marker]), timeout_s=_PATIENCE_S)

    async def consumed(self, process: str) -> float:
        """How many messages a process has finished since its start, by its metrics."""
        address = self.supervisor.metrics().get(process)
        if address is None:
            return 0.0
        async with httpx.AsyncClient(trust_env=False) as http:
            try:
                text = (await http.get(address, timeout=5)).text
            except httpx.HTTPError:
                return 0.0
        families = text_string_to_metric_families(text)
        return sum(
            s.value for family in families for s in family.samples if s.name == "penstock_consumed_messages_total"
        )

    async def _behind(self) -> dict[str, int]:
        """Messages that each group has not committed yet; empty where there are none."""
        lag: Counter[str] = Counter()
        for group, topics in GROUPS.items():
            committed = await self.bus.committed(group, topics)
            for place, end in (await self.ends(topics)).items():
                lag[group] += end - committed.get(place, 0)
        return {group: count for group, count in lag.items() if count}

    async def ends(self, topics: Iterable[str]) -> dict[Partition, int]:
        """The offset after the last message of each partition."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self.stack.environment()["KAFKA_BOOTSTRAP"])
        await consumer.start()
        try:
            count = {topic: self.codec.catalogue.topic(topic).partitions for topic in topics}
            wanted = [TopicPartition(topic, number) for topic in count for number in range(count[topic])]
            return {Partition(tp.topic, tp.partition): end for tp, end in (await consumer.end_offsets(wanted)).items()}
        finally:
            await consumer.stop()


async def _unless(event: asyncio.Event, seconds: float) -> None:
    """Wait ``seconds``, or less where ``event`` comes."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def flow(
    stack: Stack, deployed: Mapping[str, str], kafka_settings: KafkaSettings, project: Path
) -> AsyncIterator[Flow]:
    """All services, once a module; second replicas of guardrails and inference are known, but not started."""
    happened: list[tuple[str, str]] = []

    def changed(member: Member, text: str) -> None:
        happened.append((member.name, text))

    codec = await Codec.resolve(Catalogue.load(), kafka_settings.schema_registry_url)
    with Receiver() as receiver:
        supervisor = Supervisor(
            service_specs(FLOW, project, {"guardrails": 2, "inference": 2}),
            {
                **os.environ,
                **stack.secrets(),
                **deployed,
                **receiver.environment(),
                "PENSTOCK_STACK": stack.name,
                "SESSION_TIMEOUT_MS": str(_SESSION_MS),
            },
            stack.folder,
            cwd=project,
            # Tests kill one process several times in a row.
            policy=RestartPolicy(max_crashes=20, max_delay_s=1.0),
            on_change=changed,
        )
        try:
            await supervisor.start(*FLOW)
            await supervisor.wait_ready(*FLOW, timeout_s=_READY_S)
            async with (
                KafkaBus(kafka_settings, client_id="penstock-e2e") as bus,
                Observer(bus, codec) as observer,
                Client(kafka_settings, tenant=TEAM) as client,
            ):
                yield Flow(supervisor, stack, bus, codec, client, observer, receiver, happened)
        finally:
            await supervisor.close()
