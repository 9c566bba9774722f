"""Bandwidth's OAuth 2.0: its token endpoint gives an access token for an hour, for the client's credentials.

No misbehaviour counts here: what is asked for is how messages are treated. Tokens end with the process that gave them.
"""

import secrets
from datetime import timedelta
from hmac import compare_digest
from typing import Final

from aiohttp import web

from server.providers.sandbox.carrier import Carrier
from server.providers.sandbox.gate import credentials_of
from server.providers.sandbox.settings import BANDWIDTH_TOKEN_PATH, BandwidthAccount

LIFETIME: Final = timedelta(hours=1)


class BandwidthTokens:
    """Gives tokens, and knows those that are good."""

    def __init__(self, carrier: Carrier, account: BandwidthAccount) -> None:
        self._carrier = carrier
        self._expected = f"{account.client_id}:{account.client_secret}".encode()
        self._ends: dict[str, float] = {}

    def routes(self) -> list[web.RouteDef]:
        """Where they are given."""
        return [web.post(BANDWIDTH_TOKEN_PATH, self.create)]

    async def create(self, request: web.Request) -> web.Response:
        """A token, for client credentials as basic auth and no other grant."""
        if not compare_digest(credentials_of(request), self._expected):
            return web.json_response({"error": "invalid_client"}, status=401, headers={"WWW-Authenticate": "Basic"})
        if (await request.post()).get("grant_type") != "client_credentials":
            return web.json_response({"error": "unsupported_grant_type"}, status=400)
        now = self._carrier.now()
        self._ends = {token: end for token, end in self._ends.items() if end > now}
        token, seconds = secrets.token_urlsafe(32), int(LIFETIME.total_seconds())
        self._ends[token] = now + seconds
        answer = {"access_token": token, "token_type": "Bearer", "expires_in": seconds}
        return web.json_response(answer, headers={"Cache-Control": "no-store"})

    def is_good(self, request: web.Request) -> bool:
        """Whether a request carries a token that has not ended."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        return scheme.lower() == "bearer" and self._ends.get(token, 0) > self._carrier.now()
