"""What of a notification has arrived already, where one message is several to the receiver."""

from __future__ import annotations

from collections import OrderedDict

__all__ = ["Progress"]

_MOST = 1024


class Progress:
    """Remembers, by notification, the parts that were taken, so that a further try sends only the others.

    Kept in the process only, for the newest notifications: after a restart parts may be sent again, under the identity
    by which the receiver knows them.
    """

    def __init__(self, most: int = _MOST) -> None:
        """Create it; ``most`` notifications are remembered."""
        self._taken: OrderedDict[str, set[str]] = OrderedDict()
        self._most = most

    def taken(self, notification_id: str) -> set[str]:
        """Return the parts that have arrived."""
        return set(self._taken.get(notification_id, ()))

    def note(self, notification_id: str, part: str) -> None:
        """Note that a part has arrived."""
        self._taken.setdefault(notification_id, set()).add(part)
        self._taken.move_to_end(notification_id)
        while len(self._taken) > self._most:
            self._taken.popitem(last=False)

    def forget(self, notification_id: str) -> None:
        """Drop what is known of a notification that has ended."""
        self._taken.pop(notification_id, None)
