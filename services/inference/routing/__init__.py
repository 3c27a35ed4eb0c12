"""Which targets of a route a request asks, in which order."""

from services.inference.routing.protocol import Arms, Assignment, Attempt, Choice, NoArms, Routing
from services.inference.routing.weighted import WeightedRouting

__all__ = ["Arms", "Assignment", "Attempt", "Choice", "NoArms", "Routing", "WeightedRouting"]
