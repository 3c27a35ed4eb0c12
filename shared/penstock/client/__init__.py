"""The SDK: submit requests, read results, give feedback, upload documents, embed texts."""

from penstock.client.asynchronous import Client, IdempotencyConflict, RequestNotSent
from penstock.client.synchronous import SyncClient
from penstock.client.vectors import Embeddings, NotEmbedded

__all__ = ["Client", "Embeddings", "IdempotencyConflict", "NotEmbedded", "RequestNotSent", "SyncClient"]
