"""The installation's secret, under which keys are hashed: where it comes from, and what it must be."""

from __future__ import annotations

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from penstock.settings import SettingsError

__all__ = ["KeysSettings", "installation_secret"]

_VARIABLE = "PENSTOCK_KEYS_SECRET"
_LEAST_BYTES = 32
_HOW = (
    "`openssl rand -hex 32` makes one; the edge and `penstock keys` need the same, and keys made under another are lost"
)


class KeysSettings(BaseSettings):
    """What makes keys and knows them again reads this from the environment."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True, populate_by_name=True)

    keys_secret: SecretStr | None = Field(
        None,
        alias="PENSTOCK_KEYS_SECRET",
        description="Secret of the installation, under which API keys are hashed; 32 bytes or more.",
    )


def installation_secret(settings: KeysSettings) -> bytes:
    """Return the secret that keys are hashed under.

    Raises:
        SettingsError: it is not set, or too short to keep a hash from being tried out. The message does not hold it.
    """
    # Checked here and not by the field: the error of a field shows the value.
    if settings.keys_secret is None:
        raise SettingsError(f"{_VARIABLE} is not set, and API keys are hashed under it: {_HOW}")
    secret = settings.keys_secret.get_secret_value().encode()
    if len(secret) < _LEAST_BYTES:
        raise SettingsError(f"{_VARIABLE} has {len(secret)} bytes, and must have {_LEAST_BYTES} or more: {_HOW}")
    return secret
