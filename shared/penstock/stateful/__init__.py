"""The shell of stateful processors: Faust agents over tables whose outcome no crash changes.

A service brings a pure :class:`Logic`; :class:`StatefulProcessor` runs it over a Faust stream and table;
:class:`FaustWorker` runs the Faust app inside the service's own event loop. Faust itself is imported by the services
only.
"""

from penstock.stateful.checkpointing import Checkpointing
from penstock.stateful.guard import Stalled, StallGuard
from penstock.stateful.processor import StatefulProcessor
from penstock.stateful.protocols import EmitLike, InvalidEvent, Logic, Lookup
from penstock.stateful.table import IdLimits
from penstock.stateful.worker import FaustWorker, PartitionMismatch, RecoveryStalled, faust_settings, partition_count

__all__ = [
    "Checkpointing",
    "EmitLike",
    "FaustWorker",
    "IdLimits",
    "InvalidEvent",
    "Logic",
    "Lookup",
    "PartitionMismatch",
    "RecoveryStalled",
    "StallGuard",
    "Stalled",
    "StatefulProcessor",
    "faust_settings",
    "partition_count",
]
