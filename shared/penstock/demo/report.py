"""The report at the end of a demo run: for people on the terminal, for programs as JSON."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from penstock.contracts.records import Alert, DriftEvent, Score, Status
from penstock.demo.money import Money, Proof, spending
from penstock.demo.outcome import Drift, Ingest, Latency, Outcome
from penstock.demo.traffic import Kind

__all__ = ["Report"]

_SHOWN_ANSWERS = 6
_LONGEST_ANSWER = 400


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that a run found out."""

    outcomes: Sequence[Outcome]
    ingest: Ingest
    drift: Drift
    money: Money
    proof: Proof
    drift_events: Sequence[DriftEvent]
    drift_demanded: bool
    latency: Latency | None
    rate: float
    memory: Mapping[str, int]
    """Resident bytes of each process after the run."""
    problems: Sequence[str]
    elapsed_s: float
    logs: str
    """Folder of the logs, empty where it is gone."""

    def show(self, console: Console) -> None:
        """Print the report."""
        self._answers(console)
        self._costs(console)
        self._budget(console)
        self._guardrails(console)
        self._evaluation(console)
        self._drift(console)
        self._speed(console)
        self._verdict(console)

    def _answers(self, console: Console) -> None:
        console.rule("[bold]Answers and their sources", align="left")
        answered = [o for o in self.outcomes if o.planned.kind is Kind.QUESTION and o.result and o.result.content]
        sourced = [o for o in answered if o.result and o.result.citations]
        for outcome in _spread(sourced, _SHOWN_ANSWERS):
            result = outcome.result
            assert result is not None  # sourced
            console.print(f"[bold]Q[/] {escape(result.prompt)}", highlight=False)
            console.print(f"[bold]A[/] {escape(_cut(result.content, _LONGEST_ANSWER))}", highlight=False)
            for passage in result.citations[:2]:
                console.print(
                    f"  [dim]{escape(passage.source)}, {escape(_cut(passage.title, 70))} "
                    f"(characters {passage.start}-{passage.end}, score {passage.score:.2f})[/]",
                    highlight=False,
                )
        judged = [o.as_expected for o in answered if o.as_expected is not None]
        line = f"{len(answered)} questions answered, {len(sourced)} with sources"
        if judged:
            line += (
                f"; {sum(judged)} of {len(judged)} answers ({sum(judged) / len(judged):.0%}) hold the expected words"
            )
        console.print(line)

    def _costs(self, console: Console) -> None:
        console.rule("[bold]Cost by team and kind of call", align="left")
        table = _table("team", "kind", "model", "calls>", "input tokens>", "output tokens>", "USD>")
        for spend in spending(self.money.costs):
            amount = f"{spend.amount:f}" + (f" + {spend.unpriced} unpriced" if spend.unpriced else "")
            table.add_row(
                spend.team,
                spend.kind,
                spend.model,
                f"{spend.calls:,}",
                f"{spend.input_tokens:,}",
                f"{spend.output_tokens:,}",
                amount,
            )
        console.print(table)

    def _budget(self, console: Console) -> None:
        console.rule("[bold]Budget and ledger", align="left")
        spend = self.money.visitor
        if spend is not None and spend.budget is not None:
            refused = [result for _, result in self.money.metered if result.status == Status.REJECTED]
            console.print(
                f"a visitor of team {spend.tenant_id} has {spend.budget.normalize():f} USD a {spend.window}: "
                f"{len(self.money.metered) - len(refused)} questions were answered for {spend.amount.normalize():f} USD, "
                f"{len(refused)} refused",
                highlight=False,
            )
            for result in refused[:1]:
                console.print(f"  {result.code}: {escape(result.reason or '')}", highlight=False)
        for alert in self.money.alerts:
            console.print(f"  alert [yellow]{alert.severity}[/] {escape(alert.title)}", highlight=False)
        if self.proof.failure:
            console.print("the ledger could not be proven: see below")
        else:
            console.print(f"penstock ledger verify: {escape(self.proof.summary)}", highlight=False)

    def _guardrails(self, console: Console) -> None:
        console.rule("[bold]Guardrails and admission", align="left")
        table = _table("request", "became", "by", "what stands in the log instead")
        for outcome in self.outcomes:
            result = outcome.result
            if result is None:
                continue
            masked = any(v.stage == "input" and v.action == "mask" for v in outcome.verdicts)
            if result.status in (Status.BLOCKED, Status.REJECTED):
                table.add_row(
                    str(outcome.planned.kind), result.status, str(result.code), _cut(result.prompt, 90) or "-"
                )
            elif masked:
                kinds = {f.kind for v in outcome.verdicts for f in v.findings if f.action == "mask"}
                table.add_row(
                    str(outcome.planned.kind), "masked", ", ".join(sorted(kinds)), escape(_cut(result.prompt, 90))
                )
        console.print(table)
        actions = Counter(f"{v.stage} {v.action}" for outcome in self.outcomes for v in outcome.verdicts)
        console.print("verdicts: " + ", ".join(f"{name} {count}" for name, count in sorted(actions.items())))
        released = [
            outcome for outcome in self.outcomes if outcome.result and outcome.result.status == Status.COMPLETED
        ]
        proven = sum(not outcome.unproven for outcome in released)
        console.print(f"audit: {proven} of {len(released)} released answers stand on a verdict on this very text")
        if self.ingest.quarantined:
            kept_out = escape(", ".join(self.ingest.quarantined))
            console.print(f"documents kept out for instructions or data hidden in them (topic verdicts): {kept_out}")

    def _evaluation(self, console: Console) -> None:
        console.rule("[bold]Evaluation", align="left")
        table = _table("abuse", "toxicity>", "label", "moved most by")
        for outcome in self.outcomes:
            score = outcome.toxicity
            if score is None or outcome.planned.kind not in (Kind.ABUSE, Kind.ABUSE_AGAIN):
                continue
            again = "[dim](again)[/] " if outcome.planned.kind is Kind.ABUSE_AGAIN else ""
            table.add_row(
                again + escape(_cut(outcome.planned.text, 60)), f"{score.score:.3f}", score.label,
                escape(", ".join(list(score.features)[:3])),
            )  # fmt: skip
        console.print(table)
        ordinary = [o.toxicity for o in self.outcomes if o.planned.kind is Kind.QUESTION and o.toxicity]
        if ordinary:
            toxic = sum(score.label == "toxic" for score in ordinary)
            console.print(
                f"ordinary questions: median {statistics.median(s.score for s in ordinary):.3f}, "
                f"{toxic} of {len(ordinary)} labelled toxic"
            )
        answers = _table("answers: evaluator", "scored>", "median>", "labels")
        of_answers: dict[str, list[Score]] = {}
        for score in (s for o in self.outcomes if o.planned.kind is Kind.QUESTION for s in o.scores):
            if score.subject == "answer":
                of_answers.setdefault(score.name, []).append(score)
        for name, scores in sorted(of_answers.items()):
            labels = Counter(score.label for score in scores if score.label)
            told = ", ".join(f"{label} {count}" for label, count in labels.most_common())
            median = statistics.median(score.score for score in scores)
            answers.add_row(name, str(len(scores)), f"{median:.3f}", escape(told))
        if of_answers:
            console.print(answers)

    def _drift(self, console: Console) -> None:
        console.rule("[bold]Drift", align="left")
        texts = {outcome.planned.request_id: outcome for outcome in self.outcomes}
        for alert in self.drift.alerts:
            self._alert(console, alert, texts)
        if not self.drift.alerts:
            wanted = "one was demanded" if self.drift_demanded else "none was demanded of this traffic"
            console.print(f"no drift alert ({wanted}); {len(self.drift_events)} drift events")

    def _alert(self, console: Console, alert: Alert, texts: Mapping[str, Outcome]) -> None:
        console.print(f"[bold]{escape(alert.title)}[/] [yellow]{alert.severity}[/]", highlight=False)
        console.print(f"  {escape(alert.description)}", highlight=False)
        event = next((e for e in self.drift_events if e.event_id == alert.causation_id), None)
        samples = (("before", event.sample_before), ("after", event.sample_after)) if event else ()
        for name, ids in samples:
            shown = [_cut(texts[i].planned.text, 60) for i in ids if i in texts][:2]
            console.print(f"  {name}: {escape(' | '.join(shown))}", highlight=False)
        if event is not None and event.request_id in texts:
            before = [o for o in self.outcomes if o.planned.phase == "A"]
            position = list(texts).index(event.request_id) + 1 - len(before)
            console.print(f"  confirmed {position} requests after the shift", highlight=False)
        for delivery in self.drift.deliveries:
            if delivery.fingerprint == alert.fingerprint:
                right = self.drift.received.get(alert.fingerprint)
                signature = {True: ", signature right", False: ", [red]signature wrong[/]", None: ""}[right]
                console.print(
                    f"  {delivery.outcome} to {delivery.channel} {escape(delivery.destination)} at try "
                    f"{delivery.attempts}{signature}" + (f": {escape(delivery.reason)}" if delivery.reason else ""),
                    highlight=False,
                )

    def _speed(self, console: Console) -> None:
        console.rule("[bold]Latency, throughput, memory", align="left")
        if self.latency is not None:
            one = self.latency
            console.print(
                f"from submit() to the result, {one.count} requests sent at {self.rate:g}/s: "
                f"p50 {one.p50 * 1e3:.0f} ms, p95 {one.p95 * 1e3:.0f} ms, p99 {one.p99 * 1e3:.0f} ms, "
                f"slowest {one.slowest * 1e3:.0f} ms; {one.throughput:.1f} results/s",
                highlight=False,
            )
        console.print(
            f"{self.ingest.documents} documents, {self.ingest.chunks} chunks indexed in {self.ingest.elapsed_s:.1f} s",
            highlight=False,
        )
        sizes = ", ".join(f"{name} {size / 1e6:.0f} MB" for name, size in self.memory.items())
        console.print(f"resident memory: {sizes}", highlight=False)

    def _verdict(self, console: Console) -> None:
        statuses = Counter(outcome.result.status for outcome in self.outcomes if outcome.result)
        console.rule()
        if not self.problems:
            counted = ", ".join(f"{count} {status}" for status, count in statuses.most_common())
            console.print(
                f"[bold green]OK[/]: {len(self.outcomes)} requests, each with exactly one result ({counted}); "
                f"{self.elapsed_s:.0f} s in all"
            )
            return
        console.print(f"[bold red]{len(self.problems)} problem{'s' if len(self.problems) > 1 else ''}[/]")
        for problem in self.problems:
            console.print(f"  [red]-[/] {escape(problem)}", highlight=False)
        if self.logs:
            console.print(f"logs of servers and services: {self.logs}", highlight=False)

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain data; money as decimal strings."""
        return {
            "ok": not self.problems,
            "problems": list(self.problems),
            "elapsed_s": round(self.elapsed_s, 1),
            "requests": len(self.outcomes),
            "results_by_status": Counter(o.result.status for o in self.outcomes if o.result),
            "expected_words": {
                "judged": sum(o.as_expected is not None for o in self.outcomes),
                "found": sum(bool(o.as_expected) for o in self.outcomes),
            },
            "documents": {
                "sent": self.ingest.documents,
                "indexed": self.ingest.indexed,
                "chunks": self.ingest.chunks,
                "quarantined": list(self.ingest.quarantined),
                "elapsed_s": round(self.ingest.elapsed_s, 2),
            },
            "costs": [
                {
                    "team": s.team, "kind": s.kind, "model": s.model, "calls": s.calls, "input_tokens": s.input_tokens,
                    "output_tokens": s.output_tokens, "usd": f"{s.amount:f}", "unpriced": s.unpriced,
                }
                for s in spending(self.money.costs)
            ],
            "budget": _budget(self.money),
            "ledger": dict(self.proof.report),
            "latency_s": None
            if self.latency is None
            else {
                "p50": round(self.latency.p50, 4), "p95": round(self.latency.p95, 4), "p99": round(self.latency.p99, 4),
                "slowest": round(self.latency.slowest, 4), "throughput_per_s": round(self.latency.throughput, 2),
            },
            "resident_bytes": dict(self.memory),
            "drift_alerts": [
                {
                    "name": alert.name, "title": alert.title, "description": alert.description,
                    "signature_valid": self.drift.received.get(alert.fingerprint),
                    "outcomes": [d.outcome for d in self.drift.deliveries if d.fingerprint == alert.fingerprint],
                }
                for alert in self.drift.alerts
            ],
            "answers": [_answer(outcome) for outcome in self.outcomes],
        }  # fmt: skip


def _budget(money: Money) -> dict[str, Any]:
    spend = money.visitor
    return {
        "limit_usd": f"{spend.budget:f}" if spend and spend.budget is not None else None,
        "spent_usd": f"{spend.amount:f}" if spend else None,
        "answered": sum(result.status == Status.COMPLETED for _, result in money.metered),
        "refused": sum(result.code == "over_budget" for _, result in money.metered),
        "alerts": [{"name": alert.name, "severity": alert.severity, "title": alert.title} for alert in money.alerts],
    }


def _answer(outcome: Outcome) -> dict[str, Any]:
    result, score = outcome.result, outcome.toxicity
    return {
        "request_id": outcome.planned.request_id,
        "kind": str(outcome.planned.kind),
        "team": outcome.planned.tenant,
        "phase": outcome.planned.phase,
        "status": result.status if result else None,
        "code": result.code if result else None,
        "prompt": result.prompt if result else None,
        "content": result.content if result else None,
        "sources": [{"source": p.source, "title": p.title, "score": p.score} for p in result.citations]
        if result
        else [],
        "expected_words": outcome.as_expected,
        "toxicity": score.score if score else None,
        "scores": {f"{each.subject}.{each.name}": each.score for each in outcome.scores},
        "latency_s": None if outcome.latency_s is None else round(outcome.latency_s, 4),
        "last_seen": outcome.last_seen or None,
    }


def _table(*columns: str) -> Table:
    """A table; a column whose title ends in ``>`` holds numbers."""
    table = Table(box=None, pad_edge=False)
    for title in columns:
        table.add_column(title.rstrip(">"), justify="right" if title.endswith(">") else "left", overflow="fold")
    return table


def _spread(items: Sequence[Outcome], count: int) -> Iterable[Outcome]:
    """``count`` of ``items``, evenly spaced."""
    return items if len(items) <= count else [items[index * len(items) // count] for index in range(count)]


def _cut(text: str, length: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 3] + "..."
