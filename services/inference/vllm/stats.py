"""The engine's own figures, step by step, as metrics."""

from __future__ import annotations

from typing import Any

from penstock.telemetry import metrics

__all__ = ["StepStats"]


class StepStats:
    """Takes what vLLM's engine says of each step: what its statistics loggers are, for one engine.

    vLLM asks no more of a logger than these methods (vllm/v1/metrics/loggers.py, StatLoggerBase).
    """

    def __init__(self, model: str) -> None:
        self._running = metrics.ENGINE_RUNNING.labels(model)
        self._waiting = metrics.ENGINE_WAITING.labels(model)
        self._usage = metrics.ENGINE_KV_CACHE_USAGE.labels(model)
        self._batch = metrics.ENGINE_BATCH_SIZE.labels(model)
        self._queries = metrics.PREFIX_CACHE_QUERIES.labels(model)
        self._hits = metrics.PREFIX_CACHE_HITS.labels(model)
        self._prompt = metrics.ENGINE_TOKENS.labels(model, "input")
        self._generated = metrics.ENGINE_TOKENS.labels(model, "output")
        self._preemptions = metrics.ENGINE_PREEMPTIONS.labels(model)

    def record(
        self,
        scheduler_stats: Any | None,
        iteration_stats: Any | None,
        mm_cache_stats: Any | None = None,
        engine_idx: int = 0,
    ) -> None:
        """Take one step: ``SchedulerStats`` and ``IterationStats`` of vllm/v1/metrics/stats.py."""
        if scheduler_stats is not None:
            running = scheduler_stats.num_running_reqs
            self._running.set(running)
            # Those that wait for something else (a grammar that is compiled, an adapter that is loaded) wait, too.
            self._waiting.set(scheduler_stats.num_waiting_reqs + scheduler_stats.num_skipped_waiting_reqs)
            self._usage.set(scheduler_stats.kv_cache_usage)
            if running:
                self._batch.observe(running)
            self._queries.inc(scheduler_stats.prefix_cache_stats.queries)
            self._hits.inc(scheduler_stats.prefix_cache_stats.hits)
        if iteration_stats is not None:
            self._prompt.inc(iteration_stats.num_prompt_tokens)
            self._generated.inc(iteration_stats.num_generation_tokens)
            self._preemptions.inc(iteration_stats.num_preempted_reqs)

    def stopped(self) -> None:
        """The engine is gone: nothing runs, waits or is cached."""
        for gauge in (self._running, self._waiting, self._usage):
            gauge.set(0)

    def log_engine_initialized(self) -> None:
        """vLLM says that it begins."""

    def log(self) -> None:
        """vLLM asks for a line of log."""

    def record_sleep_state(self, is_awake: int, level: int) -> None:
        """vLLM says that the engine sleeps or wakes; this one never sleeps."""
