"""Who sent an HTTP request, by the key in its Authorization header."""

from __future__ import annotations

from penstock.identity import KeyDirectory, KeyUnknown

from services.edge.protocol import Caller, Unauthorised

__all__ = ["KeyAuthenticator"]

_HOW = "send one as `Authorization: Bearer psk_...`, as OpenAI's clients do with their api_key"


class KeyAuthenticator:
    """Knows callers by the API keys of teams (an Authenticator)."""

    def __init__(self, directory: KeyDirectory) -> None:
        self._directory = directory

    def caller(self, authorization: str | None) -> Caller:
        """Return the team, the key's identity and its routes.

        Raises:
            Unauthorised: the header is missing, is no bearer token, or its key is unknown, revoked or expired.
        """
        if authorization is None:
            raise Unauthorised(f"the request has no API key: {_HOW}")
        # RFC 6750, section 2.1; the scheme's name in any case (RFC 9110, section 11.1).
        scheme, _, token = authorization.strip().partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise Unauthorised(f"the Authorization header holds no API key: {_HOW}")
        try:
            key = self._directory.key(token)
        except KeyUnknown as error:
            raise Unauthorised(str(error)) from error
        return Caller(team=key.team, key_id=key.id, routes=key.routes)
