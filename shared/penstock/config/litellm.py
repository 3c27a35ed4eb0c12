"""LiteLLM's price file (model_prices_and_context_window.json), read into prices of our own form.

The file is kept by many hands: it holds models that are not run here, prices of 0 that stand for "unknown", binary
noise in its numbers, and ever new ways to charge. What cannot be taken over exactly is skipped with a reason, since a
price that leaves something out would charge too little without a word.
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from penstock.config.entry import MONEY_PLACES
from penstock.config.prices import MODES, TIERED, TIERS, Price

__all__ = ["SPECIMEN", "LiteLLMError", "LiteLLMPrices", "Skipped", "load_litellm"]

SPECIMEN = "sample_spec"
"""The entry that explains the fields; it is no model."""

NOISE = Decimal("1e-9")
"""Largest share of a price that rounding to 12 places may change: binary floats err by 1e-16 of a number."""

_MAIN = ("input_cost_per_token", "output_cost_per_token")
_TIMED = ("input_cost_per_request", "input_cost_per_second", "output_cost_per_second")
_COSTS = tuple(name for name in Price.model_fields if "cost" in name)
_COUNTS = ("max_input_tokens", "max_output_tokens")
_READ = {*_COSTS, *_COUNTS, "max_tokens", "mode", "litellm_provider", "source", "deprecation_date", "tiered_pricing"}
# Another price above a length that Price has no field for: without it, long prompts would be charged too little.
_ABOVE = re.compile(rf"(?:{'|'.join(TIERED)})_above_(\d+[km])_tokens")
_TIER_OF = {above: tier for tier, above in TIERS.items()}
_DIGITS = Context(prec=100)


class LiteLLMError(Exception):
    """The file cannot be read as LiteLLM's price file; the message names the cause and the remedy."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A model that was not taken over: ``reason`` is one of a few, ``detail`` says what it was here."""

    model: str
    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class LiteLLMPrices:
    """What a file held.

    Attributes:
        prices: those that were taken over, in the order of the file.
        skipped: those that were not; of models that were asked for.
        left_out: fields of the prices taken over that have no counterpart, and how many entries had each.
        deprecated: models taken over that their provider ends, and when.
        entries: models in the file, whether asked for or not.
    """

    prices: tuple[Price, ...]
    skipped: tuple[Skipped, ...]
    left_out: Mapping[str, int]
    deprecated: Mapping[str, date]
    entries: int


class _Unusable(Exception):
    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.skipped = (reason, detail)


def load_litellm(
    source: Path | str,
    *,
    models: Sequence[str] = (),
    providers: Sequence[str] = (),
    include_free: bool = False,
    effective_from: datetime | None = None,
    rename: Callable[[str], str] = str,
    note: str = "LiteLLM price file",
) -> LiteLLMPrices:
    """Read LiteLLM's price file.

    Args:
        source: the file, or its text.
        models: shell patterns of the models wanted, by the names of the file; none for all.
        providers: values of litellm_provider wanted; none for all.
        include_free: take prices of 0 for what they say; otherwise they are taken for unknown.
        effective_from: first instant of the prices; None for always.
        rename: name of the price by the name in the file.
        note: stands in ``source`` of each price, after what the file itself names there.

    Raises:
        LiteLLMError: the file cannot be read, is no JSON object, or two models get one name.
    """
    data, twice = _parse(source)
    prices: list[Price] = []
    named: dict[str, str] = {}
    skipped: list[Skipped] = []
    left_out: Counter[str] = Counter()
    deprecated: dict[str, date] = {}
    for model, entry in data.items():
        provider = entry.get("litellm_provider") if isinstance(entry, dict) else None
        if models and not any(fnmatch.fnmatchcase(model, pattern) for pattern in models):
            continue
        if providers and provider not in providers:
            continue
        if model == SPECIMEN:
            continue
        try:
            if not isinstance(entry, dict):
                raise _Unusable("no entry", f"{type(entry).__name__} where a mapping belongs")
            if model in twice:
                raise _Unusable("stands in the file twice", "with different content")
            fields, omitted = _fields(entry, include_free)
            name = rename(model)
            says = entry.get("source")
            fields |= {"model": name, "source": f"{says}; {note}" if isinstance(says, str) and says else note}
            price = _price({**fields, "effective_from": effective_from})
        except _Unusable as unusable:
            skipped.append(Skipped(model, *unusable.skipped))
            continue
        if name in named:
            raise LiteLLMError(
                f"{named[name]} and {model} would both be named {name}: choose one of them by its full name"
            )
        named[name] = model
        prices.append(price)
        left_out.update(omitted)
        if (ends := _date(entry.get("deprecation_date"))) is not None:
            deprecated[name] = ends
    return LiteLLMPrices(tuple(prices), tuple(skipped), left_out, deprecated, len(data) - (SPECIMEN in data))


def _parse(source: Path | str) -> tuple[dict[str, Any], set[str]]:
    """Return the file's object, numbers as decimals by their own digits, and the names that stand in it twice."""
    twice: set[str] = set()

    def mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found and found[key] != value:
                twice.add(key)
            found[key] = value
        return found

    said = source if isinstance(source, Path) else "the text"
    try:
        text = source.read_text("utf-8-sig") if isinstance(source, Path) else source
        data = json.loads(text, parse_float=Decimal, object_pairs_hook=mapping)
    except OSError as error:
        raise LiteLLMError(f"{said} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError, InvalidOperation) as error:
        raise LiteLLMError(
            f"{said} is no JSON: {error}; fetch model_prices_and_context_window.json anew, as a raw file"
        ) from error
    if not isinstance(data, dict) or not any(isinstance(entry, dict) for entry in data.values()):
        raise LiteLLMError(f"{said} is not LiteLLM's price file: it holds no mapping of models to their prices")
    return data, twice


def _fields(entry: Mapping[str, Any], include_free: bool) -> tuple[dict[str, Any], list[str]]:
    """Return the fields of a price, and the names of the entry's own that have no counterpart.

    Raises:
        _Unusable: the price cannot be taken over as it is.
    """
    mode = entry.get("mode")
    if mode not in MODES:
        raise _Unusable("mode that is not run here" if mode else "no mode", str(mode or ""))
    given = {**entry, **_tiers(entry["tiered_pricing"])} if entry.get("tiered_pricing") else entry
    costs: dict[str, Decimal] = {}
    omitted = [name for name in entry if name not in _READ and "cost" in name]
    for name in given:
        if (above := _ABOVE.fullmatch(name)) and name not in _COSTS:
            raise _Unusable("another price above a length that has no field", f"{above[1]} tokens")
    for name in _COSTS:
        if given.get(name) is not None:
            costs[name] = _amount(name, given[name])
    _refuse_unpriced(mode, costs, include_free)
    for name in [name for name, cost in costs.items() if cost == 0 and name not in _MAIN and not include_free]:
        del costs[name]  # null: charged as any other token, rather than not at all
        omitted.append(f"{name} of 0")
    fields: dict[str, Any] = {"mode": mode, **costs}
    provider = entry.get("litellm_provider")
    fields["litellm_provider"] = provider if isinstance(provider, str) else ""
    counts = {name: entry.get(name) for name in _COUNTS}
    # The older field: of a model that generates, most tokens of an answer; of one that reads, most tokens of a prompt.
    older = "max_input_tokens" if mode in ("embedding", "rerank") else "max_output_tokens"
    counts[older] = entry.get("max_tokens") if counts[older] is None else counts[older]
    for name, value in counts.items():
        fields[name] = count = _count(value)
        if count is None and value is not None:
            omitted.append(f"{name} that is no count")
    return fields, omitted


def _refuse_unpriced(mode: str, costs: Mapping[str, Decimal], include_free: bool) -> None:
    """Refuse what lacks a price that calls of its mode need, or has it at 0 where that may hide an unknown one."""
    if not any(name in costs for name in (*_MAIN, *_TIMED)):
        raise _Unusable("no price by token, second or request")
    if any(costs.get(name) for name in _TIMED):
        return
    needed = _MAIN if mode in ("chat", "completion", "responses") else _MAIN[:1]
    for name in needed:
        if name not in costs and not any(name in costs for name in _TIMED):
            raise _Unusable("no price by token, second or request", f"{name} is missing")
    zero = [name for name in needed if not costs.get(name)]
    if zero and not include_free:
        raise _Unusable("free", f"{' and '.join(zero)} of 0")


def _tiers(tiers: Any) -> dict[str, Any]:
    """Return ``tiered_pricing``, a list of prices by a prompt's length, as the fields ``..._above_<tier>_tokens``."""
    reason, found, end = "tiered_pricing that has no fields", {}, Decimal(0)
    for tier in tiers if isinstance(tiers, list) else [tiers]:
        bounds = tier.get("range") if isinstance(tier, dict) else None
        if not isinstance(bounds, list) or len(bounds) != 2 or not all(isinstance(b, int | Decimal) for b in bounds):
            raise _Unusable(reason, "not by the prompt's length")
        if bounds[0] != end or (end and int(end) not in _TIER_OF):
            raise _Unusable(reason, f"a tier begins at {bounds[0]} tokens")
        suffix = f"_above_{_TIER_OF[int(end)]}_tokens" if end else ""
        for name, value in tier.items():
            if name in TIERED:
                found[name + suffix] = value
            elif "cost" in name and found.setdefault(name, value) != value:
                raise _Unusable(reason, f"{name} differs by tier")
        end = Decimal(bounds[1])
    return found


def _amount(name: str, value: Any) -> Decimal:
    """Return a cost exact to 12 places.

    Raises:
        _Unusable: it is no amount, or has more places than binary noise explains.
    """
    try:
        amount = Decimal(value.strip() if isinstance(value, str) else value)
        if isinstance(value, bool | float) or not amount.is_finite() or amount < 0:
            raise InvalidOperation
    except (InvalidOperation, TypeError, ValueError):
        raise _Unusable("price that is no amount", f"{name}: {str(value)[:40]!r}") from None
    try:
        rounded = amount.quantize(Decimal(1).scaleb(-MONEY_PLACES), rounding=ROUND_HALF_EVEN, context=_DIGITS)
    except InvalidOperation:
        raise _Unusable("price that is no amount", f"{name}: {str(value)[:40]!r}") from None
    if abs(_DIGITS.subtract(rounded, amount)) > _DIGITS.multiply(amount, NOISE):
        raise _Unusable(f"price of more than {MONEY_PLACES} decimal places", f"{name}: {amount}")
    return rounded


def _count(value: Any) -> int | None:
    try:
        count = None if value is None or isinstance(value, bool) else Decimal(value)
    except (InvalidOperation, TypeError, ValueError):
        return None
    return int(count) if count is not None and count.is_finite() and count >= 1 and count == int(count) else None


def _price(fields: Mapping[str, Any]) -> Price:
    try:
        return Price.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise _Unusable("refused by our own rules", f"{where}: {first['msg']}".lstrip(": ")) from None


def _date(value: Any) -> date | None:
    try:
        return date.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
