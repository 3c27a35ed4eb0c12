"""What people tell the detectors, pure: the present is the baseline, or the reference is a period's and stays."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from penstock.contracts.records import DriftCommand

from services.drift import detectors as watching
from services.drift.detectors import Detectors, Parameters
from services.drift.pinned import flaw
from services.drift.segments import Observed, SegmentState

__all__ = ["InvalidCommand", "decode", "obeyed", "pinned_reference", "rebase"]

_FORMAT = 1
_ACTIONS = ("rebase", "pin", "unpin")


class InvalidCommand(ValueError):
    """A command cannot be carried out as it stands."""


class _Pinned(msgspec.Struct, frozen=True):
    format: int
    detectors: Detectors


def pinned_reference(signals: Iterable[Observed], parameters: Parameters) -> bytes:
    """Return the reference that a period makes, for the ``reference`` of a ``pin`` command.

    Args:
        signals: the period's records of ``signals`` of the segments concerned, in the order of the log.
        parameters: how the detectors are set where the command is carried out.

    Raises:
        InvalidCommand: the period has too few events for any signal to have a reference.
    """
    detectors = Detectors()
    for each in signals:
        # Without an allowance no change is confirmed: the whole period is the reference.
        detectors, _ = watching.observe(detectors, each.record, each.offset, each.record.occurred_at, 0.0, parameters)
    detectors = watching.handed_down(detectors)
    ready = watching.with_reference(detectors)
    if not len(ready):
        raise InvalidCommand(
            "the period has too few events to be a reference for any signal: choose a longer one (40 values of a number, "
            "32 embeddings, 64 categories are needed)"
        )
    return msgspec.msgpack.encode(_Pinned(_FORMAT, ready))


def decode(reference: bytes) -> Detectors:
    """Return the detectors' states of a pinned reference.

    Raises:
        InvalidCommand: the bytes are none, of another version, or states whose parts do not fit each other.
    """
    try:
        pinned = msgspec.msgpack.decode(reference, type=_Pinned)
    except (ValueError, OverflowError) as error:  # of msgspec's own, of texts that are no UTF-8
        raise InvalidCommand(
            f"the pinned reference cannot be read ({error}): make it with this version's `penstock drift pin`"
        ) from error
    if pinned.format != _FORMAT:
        raise InvalidCommand(
            f"the pinned reference has format {pinned.format}, this version reads {_FORMAT}: make it again"
        )
    # No candidate and no past regimes, whatever it says: a reference has none.
    detectors = watching.handed_down(pinned.detectors)
    wrong = flaw(detectors)
    if wrong is not None:
        raise InvalidCommand(f"the pinned reference is broken: {wrong}; make it with `penstock drift pin`")
    return detectors


def obeyed(state: SegmentState, command: DriftCommand) -> tuple[SegmentState, list[str]]:
    """Carry out a command on one segment.

    Returns:
        The next state, and the names of the alerts whose condition ends with it.

    Raises:
        InvalidCommand: its action is not known, or the reference of a ``pin`` is missing or broken.
    """
    if command.action not in _ACTIONS:
        raise InvalidCommand(f"the action {command.action!r} is not known; there are {', '.join(_ACTIONS)}")
    if command.action == "rebase":
        known = list(state.detectors) if command.signal is None else [command.signal]
        return rebase(state, known)
    if command.action == "unpin":
        return msgspec.structs.replace(state, pinned=_without(state.pinned, command.signal)), []
    if command.reference is None:
        raise InvalidCommand("a pin has no reference: name a period, of which `penstock drift pin` makes one")
    given = decode(command.reference)
    signals = list(given) if command.signal is None else [command.signal]
    if command.signal is not None and command.signal not in given:
        raise InvalidCommand(f"the reference has nothing about {command.signal}; it has {', '.join(sorted(given))}")
    detectors, pinned = state.detectors, state.pinned
    for signal in signals:
        detectors = watching.replaced(detectors, given, signal)
        pinned = watching.replaced(pinned, given, signal)
    inherited = tuple(name for name in state.inherited if name not in signals)
    # What was told against the old reference is told again if it holds against the new one.
    ended = [name for name, condition in state.conditions.items() if condition.signal in signals]
    baselines = {name: level for name, level in state.baselines.items() if name not in signals}
    state = msgspec.structs.replace(state, detectors=detectors, pinned=pinned, inherited=inherited, baselines=baselines)
    return state, ended


def rebase(state: SegmentState, signals: Iterable[str]) -> tuple[SegmentState, list[str]]:
    """Make the present of some signals their baseline; what was pinned of them is given up.

    Returns:
        The next state, and the names of the alerts whose condition ends with it.
    """
    chosen = set(signals)
    detectors, pinned = state.detectors, state.pinned
    for signal in sorted(chosen):
        detectors, pinned = watching.rebased(detectors, signal), _without(pinned, signal)
    ended = [name for name, condition in state.conditions.items() if condition.signal in chosen]
    state = msgspec.structs.replace(
        state,
        detectors=detectors,
        pinned=pinned,
        inherited=tuple(name for name in state.inherited if name not in chosen),
        baselines={name: level for name, level in state.baselines.items() if name not in chosen},
        returns={name: count for name, count in state.returns.items() if name not in chosen},
    )
    return state, ended


def _without(pinned: Detectors, signal: str | None) -> Detectors:
    if signal is None:
        return Detectors()
    return Detectors(
        numbers={name: state for name, state in pinned.numbers.items() if name != signal},
        vectors={name: state for name, state in pinned.vectors.items() if name != signal},
        categories={name: state for name, state in pinned.categories.items() if name != signal},
        profiles={name: profile for name, profile in pinned.profiles.items() if name != signal},
    )
