"""API keys through the front door."""

import asyncio

import grpc
import grpc.aio
import pytest
from commonservices.v1 import api_key_service_pb2 as pb
from commonservices.v1 import bearer_service_pb2, event_service_pb2

from server.caller import BearerType
from server.db import Database
from tests.clients import Client, client_with, credentials, refused, until_refused
from tests.conftest import MakeClient


async def test_token_is_answered_once_and_works(client: Client, channel: grpc.aio.Channel) -> None:
    key = await client.api_keys.CreateApiKey(pb.CreateApiKeyRequest(), metadata=client.metadata)

    listed = await client.api_keys.ListApiKeys(pb.ListApiKeysRequest(), metadata=credentials(key.token))

    assert key.token.startswith("csk_")
    assert len(key.token) == 47
    assert key.token.startswith(key.token_prefix)
    assert [k.id for k in listed.api_keys][-1] == key.id
    assert not any(k.HasField("token") for k in listed.api_keys)


async def test_database_holds_no_token(client: Client, db: Database) -> None:
    async with db.connection() as connection:
        cursor = await connection.execute("SELECT to_jsonb(k)::text FROM api_keys k")
        rows = await cursor.fetchall()

    assert rows
    assert not any(client.token[4:] in row[0] for row in rows)


@pytest.mark.parametrize(
    ("authorization", "reason"),
    [
        (None, "CREDENTIALS_MISSING"),
        ("", "CREDENTIALS_MISSING"),
        ("Bearer", "CREDENTIALS_MISSING"),
        ("Bearer ", "CREDENTIALS_MISSING"),
        ("Basic dXNlcjpwYXNz", "CREDENTIALS_MISSING"),
        ("Bearer nonsense", "CREDENTIALS_INVALID"),
        ("Bearer csk_" + "A" * 43, "CREDENTIALS_INVALID"),
        ("Bearer csk_" + "A" * 10_000, "CREDENTIALS_INVALID"),
    ],
)
async def test_bad_credentials_are_refused(client: Client, authorization: str | None, reason: str) -> None:
    metadata = () if authorization is None else (("authorization", authorization),)

    answer = await refused(client.api_keys.ListApiKeys(pb.ListApiKeysRequest(), metadata=metadata))

    assert (answer.code, answer.reason) == (grpc.StatusCode.UNAUTHENTICATED, reason)


async def test_deleted_key_ends_at_once(client: Client) -> None:
    key = await client.api_keys.CreateApiKey(pb.CreateApiKeyRequest(), metadata=client.metadata)
    for _ in range(3):  # known to the process's memory
        await client.api_keys.ListApiKeys(pb.ListApiKeysRequest(), metadata=credentials(key.token))

    await client.api_keys.DeleteApiKey(pb.DeleteApiKeyRequest(id=key.id), metadata=client.metadata)

    await until_refused(
        lambda: client.api_keys.ListApiKeys(pb.ListApiKeysRequest(), metadata=credentials(key.token)),
        "CREDENTIALS_INVALID",
    )


async def test_key_of_another_bearer_is_not_found(client: Client, client_of: MakeClient) -> None:
    other = await client_of(BearerType.APPLICATION)
    [key] = (await other.api_keys.ListApiKeys(pb.ListApiKeysRequest(), metadata=other.metadata)).api_keys

    answer = await refused(client.api_keys.DeleteApiKey(pb.DeleteApiKeyRequest(id=key.id), metadata=client.metadata))

    assert (answer.code, answer.reason) == (grpc.StatusCode.NOT_FOUND, "API_KEY_NOT_FOUND")
    assert await other.api_keys.ListApiKeys(pb.ListApiKeysRequest(), metadata=other.metadata)


async def test_list_holds_own_keys_only_unless_admin(client: Client, admin: Client) -> None:
    own = await client.api_keys.ListApiKeys(pb.ListApiKeysRequest(), metadata=client.metadata)
    everybodys = await admin.api_keys.AdminListApiKeys(pb.AdminListApiKeysRequest(), metadata=admin.metadata)

    assert {k.bearer_id for k in own.api_keys} == {client.bearer_id}
    assert {k.bearer_id for k in everybodys.api_keys} == {client.bearer_id, admin.bearer_id}


async def test_key_for_another_bearer_takes_an_admin(client: Client, admin: Client) -> None:
    refused_own = await refused(
        client.api_keys.CreateApiKey(pb.CreateApiKeyRequest(bearer_id=admin.bearer_id), metadata=client.metadata)
    )
    refused_admin = await refused(
        client.api_keys.AdminCreateApiKey(
            pb.AdminCreateApiKeyRequest(bearer_id=client.bearer_id), metadata=client.metadata
        )
    )
    made = await admin.api_keys.AdminCreateApiKey(
        pb.AdminCreateApiKeyRequest(bearer_id=client.bearer_id), metadata=admin.metadata
    )

    assert refused_own.fields == ("bearer_id",)
    assert (refused_admin.code, refused_admin.reason) == (grpc.StatusCode.PERMISSION_DENIED, "ROLE_REQUIRED")
    assert made.bearer_id == client.bearer_id


@pytest.mark.parametrize("bearer_id", [999_999, 4_294_967_295])
async def test_key_for_nobody_is_refused(admin: Client, bearer_id: int) -> None:
    answer = await refused(
        admin.api_keys.AdminCreateApiKey(pb.AdminCreateApiKeyRequest(bearer_id=bearer_id), metadata=admin.metadata)
    )

    assert (answer.code, answer.reason) == (grpc.StatusCode.NOT_FOUND, "BEARER_NOT_FOUND")
    assert answer.metadata == {"bearer_id": str(bearer_id)}


async def test_use_is_recorded(client: Client) -> None:
    async with asyncio.timeout(30):
        while True:
            listed = await client.api_keys.ListApiKeys(pb.ListApiKeysRequest(), metadata=client.metadata)
            if listed.api_keys[0].HasField("last_used_at"):
                break
            await asyncio.sleep(0.05)


async def test_last_admin_key_cannot_be_deleted(admin: Client) -> None:
    [key] = (await admin.api_keys.ListApiKeys(pb.ListApiKeysRequest(), metadata=admin.metadata)).api_keys

    answer = await refused(admin.api_keys.DeleteApiKey(pb.DeleteApiKeyRequest(id=key.id), metadata=admin.metadata))

    assert (answer.code, answer.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "LAST_ADMIN")


async def test_two_admins_cannot_remove_each_other(client_of: MakeClient) -> None:
    admins = [await client_of(BearerType.ADMIN) for _ in range(2)]

    outcomes = await asyncio.gather(
        *(
            one.bearers.DeleteBearer(bearer_service_pb2.DeleteBearerRequest(id=other.bearer_id), metadata=one.metadata)
            for one, other in zip(admins, reversed(admins), strict=True)
        ),
        return_exceptions=True,
    )

    assert sum(isinstance(outcome, grpc.aio.AioRpcError) for outcome in outcomes) == 1


async def test_repeated_create_answers_the_same_token(client: Client) -> None:
    request = pb.CreateApiKeyRequest(request_id="retry-me")

    keys = await asyncio.gather(*(client.api_keys.CreateApiKey(request, metadata=client.metadata) for _ in range(5)))
    listed = await client.api_keys.ListApiKeys(pb.ListApiKeysRequest(), metadata=client.metadata)

    assert len({key.token for key in keys}) == 1
    assert len(listed.api_keys) == 2


async def test_request_id_of_another_request_is_refused(admin: Client, client: Client) -> None:
    for bearer_id in (client.bearer_id, admin.bearer_id):
        call = admin.api_keys.AdminCreateApiKey(
            pb.AdminCreateApiKeyRequest(bearer_id=bearer_id, request_id="once"), metadata=admin.metadata
        )
        if bearer_id == client.bearer_id:
            await call
        else:
            answer = await refused(call)

    assert (answer.code, answer.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
    assert answer.metadata == {"request_id": "once"}


async def test_pages_hold_every_key_once(client: Client, channel: grpc.aio.Channel) -> None:
    for _ in range(4):
        await client.api_keys.CreateApiKey(pb.CreateApiKeyRequest(), metadata=client.metadata)

    seen: list[int] = []
    token = ""
    while True:
        page = await client.api_keys.ListApiKeys(
            pb.ListApiKeysRequest(page_size=2, page_token=token), metadata=client.metadata
        )
        seen += [key.id for key in page.api_keys]
        token = page.next_page_token
        if not token:
            break

    assert len(seen) == 5
    assert seen == sorted(set(seen))


@pytest.mark.parametrize("token", ["x", "AAAAAAAAAAAAAAAAAAAAAA", "%00", "é"])
async def test_made_up_page_token_is_refused(client: Client, token: str) -> None:
    answer = await refused(
        client.api_keys.ListApiKeys(pb.ListApiKeysRequest(page_token=token), metadata=client.metadata)
    )

    assert answer.fields == ("page_token",)


async def test_token_of_a_deleted_bearer_is_refused(admin: Client, client: Client, channel: grpc.aio.Channel) -> None:
    await admin.bearers.DeleteBearer(
        bearer_service_pb2.DeleteBearerRequest(id=client.bearer_id), metadata=admin.metadata
    )

    stranger = client_with(channel, bearer_id=client.bearer_id, token=client.token)
    await until_refused(
        lambda: stranger.api_keys.ListApiKeys(pb.ListApiKeysRequest(), metadata=stranger.metadata),
        "CREDENTIALS_INVALID",
    )


async def test_creates_with_request_ids_do_not_wait_for_each_other_for_ever(client: Client) -> None:
    requests = [pb.CreateApiKeyRequest(request_id=f"request-{number}") for number in range(8)]

    made = await asyncio.gather(*(client.api_keys.CreateApiKey(r, metadata=client.metadata) for r in requests))

    assert len({key.id for key in made}) == len(requests)


async def test_stream_of_a_bearer_that_is_no_admin_any_more_ends(client_of: MakeClient, admin: Client) -> None:
    demoted = await client_of(BearerType.ADMIN)
    stream = demoted.events.StreamEvents(event_service_pb2.StreamEventsRequest(), metadata=demoted.metadata)
    await stream.read()

    await admin.bearers.UpdateBearer(
        bearer_service_pb2.UpdateBearerRequest(id=demoted.bearer_id, bearer_type=BearerType.USER),
        metadata=admin.metadata,
    )

    # Sooner than at its next heartbeat, when the key is looked up again.
    async with asyncio.timeout(15):
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await stream.read()
    assert ended.value.code() is grpc.StatusCode.UNAUTHENTICATED
