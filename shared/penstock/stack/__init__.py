"""Kafka, a schema registry, Redis and Qdrant on this machine, and the services on top, without Docker and without root.

>>> from penstock.stack import Stack
>>> stack = Stack.open("default")
>>> stack.up()                  # doctest: +SKIP
>>> stack.environment()         # doctest: +SKIP
{'KAFKA_BOOTSTRAP': '127.0.0.1:21874', ...}

:class:`penstock.stack.supervisor.Supervisor` runs the services.
"""

from penstock.stack.errors import StackError
from penstock.stack.stack import Stack

__all__ = ["Stack", "StackError"]
