"""Prices that were imported, as a YAML file of the configuration: what an import changes in it, and its text.

A file of imports keeps history: a price with a date stands beside the older ones, and a model that the source no longer
lists keeps the price it had, until somebody says that it goes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import yaml

from penstock.config.files import load_entries
from penstock.config.kinds import Price
from penstock.config.publish import Change

__all__ = ["MADE_BY", "ImportPlan", "PriceChange", "made_by_import", "plan_import", "prices_text", "read_prices"]

MADE_BY = "# Made by `penstock prices import`"
"""How the first line of such a file begins."""

_ALWAYS = datetime.min.replace(tzinfo=UTC)
_NOT_TERMS = ("source", "effective_from")


@dataclass(frozen=True, slots=True)
class PriceChange:
    """What an import means for one model.

    Attributes:
        action: new, changed, gone (the source no longer has it), or elsewhere: it differs from a price that stands in
            another file, ``where``, and is left to that one.
        in_place: a price is replaced rather than followed by one with a later date.
    """

    model: str
    action: Literal["new", "changed", "gone", "elsewhere"]
    before: Price | None
    after: Price | None
    in_place: bool = False
    where: Path | None = None

    def differences(self) -> list[tuple[str, str | None, str | None]]:
        """Fields of the terms that differ: name, value before and value after; None where there is none."""
        change = Change("prices", self.model, "changed", self.before, self.after)
        return [found for found in change.differences() if found[0] not in _NOT_TERMS]


@dataclass(frozen=True, slots=True)
class ImportPlan:
    """The prices that a file would hold after an import, and how that differs from what is configured."""

    prices: tuple[Price, ...]
    changes: tuple[PriceChange, ...]
    unchanged: int


def plan_import(
    imported: Iterable[Price],
    own: Iterable[Price],
    others: Mapping[Path, Iterable[Price]],
    *,
    effective_from: datetime | None = None,
    gone: Callable[[Price], bool] = lambda price: True,
    prune: bool = False,
) -> ImportPlan:
    """Merge imported prices into those of a file.

    A price that is new is added. One that differs from the one in force at ``effective_from`` is added with that date
    and the older one stays; without a date it replaces the newest, which then counts from when that one did. Where only
    ``source`` differs nothing changes, so that a version lasts as long as its terms.

    Args:
        imported: at most one for a model.
        own: what the file holds now.
        others: what the other files of its folder hold; their prices are never changed.
        effective_from: first instant of what is imported; None changes in place.
        gone: whether a price of the file whose model was not imported counts as gone: the import may not have asked for it.
        prune: remove the prices of models that are gone, history and all.
    """
    kept = {price.key: price for price in own}
    elsewhere = {price.key: file for file, prices in others.items() for price in prices}
    configured: dict[str, list[Price]] = {}
    for price in [*kept.values(), *(price for prices in others.values() for price in prices)]:
        configured.setdefault(price.model, []).append(price)
    changes, unchanged, seen = [], 0, set()
    for price in imported:
        seen.add(price.model)
        before = _in_force(configured.get(price.model, []), effective_from)
        if before is None:
            after = _from(price, effective_from)
            kept[after.key] = after
            changes.append(PriceChange(price.model, "new", None, after))
            continue
        if _terms(before) == _terms(price):
            unchanged += 1
            continue
        in_place = effective_from is None or before.effective_from == effective_from
        after = _from(price, before.effective_from if in_place else effective_from)
        if in_place and before.key in elsewhere:
            changes.append(PriceChange(price.model, "elsewhere", before, after, where=elsewhere[before.key]))
            continue
        kept[after.key] = after
        changes.append(PriceChange(price.model, "changed", before, after, in_place=in_place))
    for model in dict.fromkeys(price.model for price in own):
        if (
            model not in seen
            and (last := _in_force([p for p in kept.values() if p.model == model], None))
            and gone(last)
        ):
            changes.append(PriceChange(model, "gone", last, None))
            if prune:
                kept = {key: price for key, price in kept.items() if price.model != model}
    return ImportPlan(tuple(sorted(kept.values(), key=_order)), tuple(changes), unchanged)


def made_by_import(file: Path) -> bool:
    """Whether ``file`` was written by an import: then an import may write it again."""
    with file.open("r", encoding="utf-8", errors="replace") as opened:
        return opened.readline().startswith(MADE_BY)


def prices_text(prices: Sequence[Price], comment: str) -> str:
    """Return ``prices`` as a YAML file that reads back to exactly these entries and versions.

    Args:
        comment: one line for the head of the file, e.g. where the prices come from.
    """
    head = f"{MADE_BY}: write your own prices into another file, an import would change them.\n# {comment}\n"
    entries = [_plain(price) for price in prices]
    return head + yaml.dump(entries, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def read_prices(file: Path) -> list[Price]:
    """Return the prices in ``file``.

    Raises:
        penstock.config.files.ConfigInvalid: it holds something else.
    """
    return [located.entry for located in load_entries("prices", file) if isinstance(located.entry, Price)]


def _in_force(prices: Iterable[Price], at: datetime | None) -> Price | None:
    """Return the newest of ``prices``, or where ``at`` is given, the newest that has begun by then."""
    begun = [price for price in prices if at is None or (price.effective_from or _ALWAYS) <= at]
    return max(begun, key=lambda price: price.effective_from or _ALWAYS, default=None)


def _from(price: Price, effective_from: datetime | None) -> Price:
    return Price.model_validate({**price.model_dump(exclude_defaults=True), "effective_from": effective_from})


def _terms(price: Price) -> dict[str, Any]:
    return price.model_dump(exclude_defaults=True, exclude=set(_NOT_TERMS))


def _order(price: Price) -> tuple[str, datetime]:
    return price.model, price.effective_from or _ALWAYS


def _plain(price: Price) -> dict[str, Any]:
    fields = price.model_dump(include={"model", "litellm_provider", "mode"}) | price.model_dump(exclude_defaults=True)
    begins = price.effective_from
    if begins is not None:
        midnight = begins.time() == datetime.min.time()
        fields["effective_from"] = begins.date() if midnight else begins.isoformat()
    return fields


class _Dumper(yaml.SafeDumper):
    """Writes decimals with all their digits, never as 1e-07: that is a text to YAML 1.1, and hard to compare."""


def _decimal(dumper: _Dumper, value: Decimal) -> yaml.ScalarNode:
    text = format(value.normalize(), "f")
    return dumper.represent_scalar(f"tag:yaml.org,2002:{'float' if '.' in text else 'int'}", text)


_Dumper.add_representer(Decimal, _decimal)
