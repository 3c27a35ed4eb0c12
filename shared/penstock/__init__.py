"""The library every Penstock service stands on, and the SDK its producers and consumers use."""

__version__ = "0.1.0"

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penstock.client import Client, SyncClient

__all__ = ["Client", "SyncClient"]


def __getattr__(name: str) -> Any:
    # Services import penstock without paying for the SDK.
    if name in __all__:
        import penstock.client

        return getattr(penstock.client, name)
    raise AttributeError(f"module 'penstock' has no attribute {name!r}")
