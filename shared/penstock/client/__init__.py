"""The SDK: submit requests, read results, give feedback, upload documents."""

from penstock.client.asynchronous import Client, IdempotencyConflict, RequestNotSent
from penstock.client.synchronous import SyncClient

__all__ = ["Client", "IdempotencyConflict", "RequestNotSent", "SyncClient"]
