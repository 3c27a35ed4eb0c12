"""Which targets of a route a request asks, in which order."""

from services.inference.routing.protocol import Choice, Routing
from services.inference.routing.weighted import WeightedRouting

__all__ = ["Choice", "Routing", "WeightedRouting"]
