"""Who a caller is: API keys of teams, how they are made, and how one that is shown is known again."""

from penstock.identity.directory import KeyDirectory, Keys, KeyUnknown
from penstock.identity.secret import KEY_PATTERN, MintedKey, digest_of, mint, parse_key
from penstock.identity.settings import KeysSettings, installation_secret

__all__ = [
    "KEY_PATTERN",
    "KeyDirectory",
    "KeyUnknown",
    "Keys",
    "KeysSettings",
    "MintedKey",
    "digest_of",
    "installation_secret",
    "mint",
    "parse_key",
]
