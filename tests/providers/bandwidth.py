"""The Bandwidth side of the provider tests: an account whose callbacks a receiver takes, and what it is asked with."""

from typing import Any

import aiohttp

from server.providers.bandwidth.callback import BandwidthEventsReader
from server.providers.bandwidth.oauth import ClientCredentials
from server.providers.ports import InboundMessage, MessageCallback, SignedRequest
from server.providers.sandbox.settings import BANDWIDTH_APPLICATION_ID, BANDWIDTH_TOKEN_PATH, BandwidthAccount
from tests.providers.servers import Received, Receiver, Sandbox

ACCOUNT_ID = "9900000"
CLIENT_ID = "CLI-1"
CLIENT_SECRET = "the-secret"
CALLBACK_USERNAME = "callbacks"
CALLBACK_PASSWORD = "another-password"
MESSAGES = f"/api/v2/users/{ACCOUNT_ID}/messages"
NUMBER = "+13035550100"


def account(callback_url: str) -> BandwidthAccount:
    """The account that the sandbox plays."""
    return BandwidthAccount(
        account_id=ACCOUNT_ID,
        client_id=CLIENT_ID,
        client_secret=CLIENT_SECRET,
        callback_url=callback_url,
        callback_username=CALLBACK_USERNAME,
        callback_password=CALLBACK_PASSWORD,
    )


def credentials(base_url: str, *, client_secret: str = CLIENT_SECRET) -> ClientCredentials:
    """What the account's programs get tokens for, from the token endpoint beside the API."""
    return ClientCredentials(
        client_id=CLIENT_ID, client_secret=client_secret, token_url=base_url + BANDWIDTH_TOKEN_PATH
    )


async def next_post(receiver: Receiver) -> Received:
    """The next callback with credentials, waited for: each is first posted without."""
    while True:
        received = await receiver.next()
        if "Authorization" in received.headers:
            return received


async def next_event(receiver: Receiver) -> MessageCallback | InboundMessage:
    """The next callback's one event, verified and read as our server would."""
    received = await next_post(receiver)
    reader = BandwidthEventsReader(username=CALLBACK_USERNAME, password=CALLBACK_PASSWORD)
    read = reader.read(SignedRequest(url=received.url, body=received.body, headers=received.headers))
    assert not read.faults
    (event,) = read.events
    return event


async def next_callback(receiver: Receiver) -> MessageCallback:
    """The next callback, which is of one of our messages."""
    event = await next_event(receiver)
    assert isinstance(event, MessageCallback)
    return event


async def next_statuses(receiver: Receiver, count: int) -> list[str]:
    """The statuses of the next callbacks."""
    return [(await next_callback(receiver)).report.provider_status for _ in range(count)]


async def authorization(sandbox: Sandbox) -> dict[str, str]:
    """The header field that lets a request in; an account without Bandwidth gives no token."""
    basic = {"Authorization": aiohttp.encode_basic_auth(CLIENT_ID, CLIENT_SECRET)}
    grant = {"grant_type": "client_credentials"}
    async with sandbox.http.post(sandbox.base_url + BANDWIDTH_TOKEN_PATH, data=grant, headers=basic) as response:
        return {"Authorization": f"Bearer {(await response.json()).get('access_token')}"}


async def request(
    sandbox: Sandbox, method: str, path: str, *, headers: dict[str, str] | None = None, **request: Any
) -> tuple[int, Any]:
    """One request of Bandwidth's protocol, status and JSON."""
    headers = await authorization(sandbox) if headers is None else headers
    async with sandbox.http.request(method, sandbox.base_url + path, headers=headers, **request) as response:
        return response.status, await response.json()


async def create(sandbox: Sandbox, **over: Any) -> tuple[int, Any]:
    """Create a message, valid where nothing else is said; None leaves a field out."""
    fields = {
        "applicationId": BANDWIDTH_APPLICATION_ID,
        "from": NUMBER,
        "to": ["+14155550123"],
        "text": "hello",
    } | over
    json = {name: value for name, value in fields.items() if value is not None}
    return await request(sandbox, "POST", MESSAGES, json=json)


async def listed(sandbox: Sandbox, **filters: str) -> list[dict[str, Any]]:
    """The messages of one page of the list."""
    status, body = await request(sandbox, "GET", MESSAGES, params=filters)
    assert status == 200, body
    messages: list[dict[str, Any]] = body["messages"]
    return messages
