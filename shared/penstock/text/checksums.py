"""Check digits of numbers in texts. Pure."""

from __future__ import annotations

__all__ = ["luhn"]


def luhn(digits: str) -> bool:
    """Return whether the check digit of ``digits`` (0 to 9 alone) is right (ISO/IEC 7812-1, annex B): every second digit
    from the right counts double."""
    total = 0
    for place, char in enumerate(reversed(digits)):
        digit = ord(char) - 48
        if place & 1:
            digit = digit * 2 - 9 if digit > 4 else digit * 2
        total += digit
    return total % 10 == 0
