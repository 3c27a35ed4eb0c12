"""Which targets of a route a request asks, in which order."""

from services.inference.routing.protocol import Arms, Assignment, Attempt, Choice, NoArms, Routing
from services.inference.routing.quality import MeasuredQuality, follow_scores
from services.inference.routing.target_routing import TargetRouting
from services.inference.routing.weighted import WeightedRouting

__all__ = [
    "Arms", "Assignment", "Attempt", "Choice", "MeasuredQuality", "NoArms", "Routing", "TargetRouting", "WeightedRouting",
    "follow_scores",
]  # fmt: skip
