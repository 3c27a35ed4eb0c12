"""Check digits that Presidio's recognizers do not cover as widely as needed."""

import re

from penstock.text.checksums import luhn

_IIN = re.compile(
    r"4\d{12}(?:\d{3}(?:\d{3})?)?|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}|3(?:0[0-5]|[689]\d)\d{11}"
    r"|6(?:011|4[4-9]\d|5\d\d)\d{12}|35\d{14}|(?:2131|1800)\d{11}|62\d{14,17}|(?:50|5[6-9]|6\d)\d{10,17}"
)


def is_payment_card(digits: str) -> bool:
    """12 to 19 digits with the prefix and length of a card network (ISO/IEC 7812 issuer ranges) and a right check
    digit.
    """
    return _IIN.fullmatch(digits) is not None and len(set(digits)) > 1 and luhn(digits)
