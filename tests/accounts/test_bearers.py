"""Bearers through the front door."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import grpc.aio
import pytest
from commonservices.v1 import bearer_pb2
from commonservices.v1 import bearer_service_pb2 as pb
from psycopg import AsyncConnection
from psycopg.rows import TupleRow, scalar_row

from server.accounts.callbacks import callback_credentials
from server.api import Api, running_api
from server.caller import BearerType
from server.config import Settings
from server.db import Database
from server.encryption import Cipher
from tests.clients import SOON_SECONDS, Client, client_with, refusal, refused, until_refused
from tests.conftest import MakeClient
from tests.factories import create_message, make_messaging_service

NOWHERE = 4_294_967_295


def new_bearer(**over: str) -> pb.CreateBearerRequest:
    given = {
        "bearer_name": "school-app",
        "bearer_type": "Application",
        "callback_url": "https://school.example/hook",
        "username": "school",
        "password": "s3cret-password",
    }
    return pb.CreateBearerRequest(**{**given, **over})


async def create(admin: Client, **over: str) -> bearer_pb2.Bearer:
    return await admin.bearers.CreateBearer(new_bearer(**over), metadata=admin.metadata)


async def read(db: Database, query: str, **parameters: object) -> Any:
    return await db.fetch_one(query, parameters, scalar_row)


async def until_ended(caller: Client) -> None:
    """Wait until the caller's key is refused."""
    await until_refused(
        lambda: caller.bearers.GetCurrentBearer(pb.GetCurrentBearerRequest(), metadata=caller.metadata),
        "CREDENTIALS_INVALID",
    )


async def test_create_answers_the_bearer_and_its_secret_once(admin: Client) -> None:
    made = await create(admin)

    got = await admin.bearers.GetBearer(pb.GetBearerRequest(id=made.id), metadata=admin.metadata)

    assert (made.bearer_name, made.bearer_type, made.callback_url, made.username) == (
        "school-app",
        "Application",
        "https://school.example/hook",
        "school",
    )
    assert made.signing_secret.startswith("whsec_")
    assert not got.HasField("signing_secret")
    made.ClearField("signing_secret")
    assert got == made


async def test_password_and_secret_are_encrypted_at_rest_and_never_answered(
    admin: Client, db: Database, cipher: Cipher
) -> None:
    made = await create(admin)

    stored = await read(db, "SELECT to_jsonb(b)::text FROM bearers b WHERE id = %(id)s", id=made.id)
    encrypted = await read(db, "SELECT password_encrypted FROM bearers WHERE id = %(id)s", id=made.id)

    assert "s3cret-password" not in str(made)
    assert b"s3cret-password".hex() not in stored
    assert made.signing_secret.encode().hex() not in stored
    assert cipher.decrypt(encrypted) == b"s3cret-password"


async def test_create_names_every_bad_field_at_once(admin: Client) -> None:
    request = pb.CreateBearerRequest(
        bearer_type="Root", callback_url="ftp://school.example", username="a:b", request_id="x" * 256
    )

    answer = await refused(admin.bearers.CreateBearer(request, metadata=admin.metadata))

    assert (answer.code, answer.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
    assert set(answer.fields) == {"bearer_name", "bearer_type", "callback_url", "username", "password", "request_id"}


@pytest.mark.parametrize(
    "url",
    [
        "",
        "school",
        "//school.example/hook",
        "https:///hook",
        "https://user:password@school.example/hook",
        "https://school.example:0/hook",
        "https://school.example:70000/hook",
        "https://school.example/a b",
        "https://school.example/\n",
        "https://[::1/hook",
        "javascript:alert(1)",
        "https://school.example/" + "x" * 2048,
    ],
)
async def test_bad_callback_url_is_refused(admin: Client, url: str) -> None:
    created = await refused(admin.bearers.CreateBearer(new_bearer(callback_url=url), metadata=admin.metadata))
    updated = await refused(
        admin.bearers.UpdateCurrentBearer(pb.UpdateCurrentBearerRequest(callback_url=url), metadata=admin.metadata)
    )

    assert created.fields == updated.fields == ("callback_url",)


@pytest.mark.parametrize("field", ["bearer_name", "username", "password"])
async def test_nul_is_refused(admin: Client, field: str) -> None:
    answer = await refused(admin.bearers.CreateBearer(new_bearer(**{field: "a\0b"}), metadata=admin.metadata))

    assert answer.fields == (field,)


@pytest.mark.parametrize("url", ["http://10.0.0.1:8080/hook?a=b", "https://bücher.example/hook", "http://[::1]:9/"])
async def test_unusual_callback_url_is_kept_as_given(admin: Client, url: str) -> None:
    assert (await create(admin, callback_url=url)).callback_url == url


async def test_list_pages_hold_every_live_bearer_once(admin: Client) -> None:
    made = [(await create(admin)).id for _ in range(4)]
    await admin.bearers.DeleteBearer(pb.DeleteBearerRequest(id=made[1]), metadata=admin.metadata)

    seen: list[int] = []
    token = ""
    while True:
        page = await admin.bearers.ListBearers(
            pb.ListBearersRequest(page_size=2, page_token=token), metadata=admin.metadata
        )
        seen += [bearer.id for bearer in page.bearers]
        token = page.next_page_token
        if not token:
            break

    assert seen == sorted({admin.bearer_id, *made} - {made[1]})


async def test_page_size_is_limited(admin: Client) -> None:
    answer = await refused(admin.bearers.ListBearers(pb.ListBearersRequest(page_size=1001), metadata=admin.metadata))

    assert answer.fields == ("page_size",)


@pytest.mark.parametrize("bearer_id", [0, NOWHERE])
async def test_unknown_bearer_is_not_found(admin: Client, bearer_id: int) -> None:
    answers = [
        await refused(admin.bearers.GetBearer(pb.GetBearerRequest(id=bearer_id), metadata=admin.metadata)),
        await refused(admin.bearers.UpdateBearer(pb.UpdateBearerRequest(id=bearer_id), metadata=admin.metadata)),
        await refused(admin.bearers.DeleteBearer(pb.DeleteBearerRequest(id=bearer_id), metadata=admin.metadata)),
    ]

    assert {(a.code, a.reason) for a in answers} == {(grpc.StatusCode.NOT_FOUND, "BEARER_NOT_FOUND")}
    assert answers[0].metadata == {"bearer_id": str(bearer_id)}


@pytest.mark.parametrize("bearer_type", [BearerType.APPLICATION, BearerType.USER])
async def test_administration_takes_an_admin(client_of: MakeClient, bearer_type: BearerType) -> None:
    caller = await client_of(bearer_type)

    answers = [
        await refused(caller.bearers.CreateBearer(new_bearer(), metadata=caller.metadata)),
        await refused(caller.bearers.ListBearers(pb.ListBearersRequest(), metadata=caller.metadata)),
        await refused(caller.bearers.GetBearer(pb.GetBearerRequest(id=caller.bearer_id), metadata=caller.metadata)),
        await refused(
            caller.bearers.UpdateBearer(
                pb.UpdateBearerRequest(id=caller.bearer_id, bearer_type="Admin"), metadata=caller.metadata
            )
        ),
        await refused(
            caller.bearers.DeleteBearer(pb.DeleteBearerRequest(id=caller.bearer_id), metadata=caller.metadata)
        ),
    ]

    assert {(a.code, a.reason) for a in answers} == {(grpc.StatusCode.PERMISSION_DENIED, "ROLE_REQUIRED")}


async def test_current_bearer_is_the_keys_own(client: Client, admin: Client) -> None:
    own = await client.bearers.GetCurrentBearer(pb.GetCurrentBearerRequest(), metadata=client.metadata)

    assert own.id == client.bearer_id
    assert own == await admin.bearers.GetBearer(pb.GetBearerRequest(id=client.bearer_id), metadata=admin.metadata)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("bearer_name", "renamed"),
        ("bearer_type", "User"),
        ("callback_url", "https://other.example/"),
        ("username", "other"),
    ],
)
async def test_update_changes_the_given_field_alone(admin: Client, field: str, value: str) -> None:
    made = await create(admin)

    changed = await admin.bearers.UpdateBearer(
        pb.UpdateBearerRequest(id=made.id, **{field: value}), metadata=admin.metadata
    )

    assert getattr(changed, field) == value
    assert changed.updated_at.ToDatetime() > made.updated_at.ToDatetime()
    expected = bearer_pb2.Bearer()
    expected.CopyFrom(made)
    expected.ClearField("signing_secret")
    expected.updated_at.CopyFrom(changed.updated_at)
    setattr(expected, field, value)
    assert changed == expected


async def test_update_of_nothing_changes_nothing(client: Client) -> None:
    before = await client.bearers.GetCurrentBearer(pb.GetCurrentBearerRequest(), metadata=client.metadata)

    after = await client.bearers.UpdateCurrentBearer(pb.UpdateCurrentBearerRequest(), metadata=client.metadata)

    after.updated_at.CopyFrom(before.updated_at)
    assert after == before


async def test_current_bearer_changes_its_credentials(client: Client, db: Database, cipher: Cipher) -> None:
    await client.bearers.UpdateCurrentBearer(
        pb.UpdateCurrentBearerRequest(username="new-user", password="new-password"), metadata=client.metadata
    )

    credentials = (await callback_credentials(db, cipher, [client.bearer_id]))[client.bearer_id]

    assert (credentials.username, credentials.password) == ("new-user", "new-password")
    assert credentials.signing_secrets == (client.signing_secret,)


async def test_update_names_every_bad_field_at_once(admin: Client) -> None:
    request = pb.UpdateBearerRequest(
        id=admin.bearer_id, bearer_name="", bearer_type="admin", callback_url="x", username=":", password=""
    )

    answer = await refused(admin.bearers.UpdateBearer(request, metadata=admin.metadata))

    assert set(answer.fields) == {"bearer_name", "bearer_type", "callback_url", "username", "password"}


async def test_change_of_role_counts_at_once(admin: Client, client: Client) -> None:
    await admin.bearers.UpdateBearer(
        pb.UpdateBearerRequest(id=client.bearer_id, bearer_type="Admin"), metadata=admin.metadata
    )
    async with asyncio.timeout(SOON_SECONDS):
        while not await may_list(client):
            pass

    await admin.bearers.UpdateBearer(
        pb.UpdateBearerRequest(id=client.bearer_id, bearer_type="User"), metadata=admin.metadata
    )
    async with asyncio.timeout(SOON_SECONDS):
        while await may_list(client):
            pass


async def may_list(caller: Client) -> bool:
    try:
        await caller.bearers.ListBearers(pb.ListBearersRequest(), metadata=caller.metadata)
    except grpc.aio.AioRpcError as error:
        return refusal(error).reason != "ROLE_REQUIRED"
    return True


async def test_last_admin_keeps_its_role_and_its_existence(admin: Client, client: Client) -> None:
    demoted = await refused(
        admin.bearers.UpdateBearer(
            pb.UpdateBearerRequest(id=admin.bearer_id, bearer_type="User"), metadata=admin.metadata
        )
    )
    deleted = await refused(
        admin.bearers.DeleteBearer(pb.DeleteBearerRequest(id=admin.bearer_id), metadata=admin.metadata)
    )

    assert demoted == deleted
    assert (deleted.code, deleted.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "LAST_ADMIN")
    assert deleted.metadata == {"bearer_id": str(admin.bearer_id)}
    assert await admin.bearers.ListBearers(pb.ListBearersRequest(), metadata=admin.metadata)


async def test_admin_without_a_key_does_not_count(admin: Client) -> None:
    await create(admin, bearer_type="Admin")

    answer = await refused(
        admin.bearers.DeleteBearer(pb.DeleteBearerRequest(id=admin.bearer_id), metadata=admin.metadata)
    )

    assert answer.reason == "LAST_ADMIN"


async def test_two_admins_cannot_demote_each_other(client_of: MakeClient, db: Database) -> None:
    admins = [await client_of(BearerType.ADMIN) for _ in range(2)]

    outcomes = await asyncio.gather(
        *(
            one.bearers.UpdateBearer(
                pb.UpdateBearerRequest(id=other.bearer_id, bearer_type="User"), metadata=one.metadata
            )
            for one, other in zip(admins, reversed(admins), strict=True)
        ),
        return_exceptions=True,
    )

    assert sum(isinstance(outcome, grpc.aio.AioRpcError) for outcome in outcomes) == 1
    assert await read(db, "SELECT count(*) FROM bearers WHERE bearer_type = 'Admin'") == 1


async def test_rotated_secret_signs_beside_the_new_one_for_24_hours(
    client: Client, db: Database, cipher: Cipher
) -> None:
    before = datetime.now(UTC)
    rotated = await client.bearers.RotateSigningSecret(pb.RotateSigningSecretRequest(), metadata=client.metadata)
    during = (await callback_credentials(db, cipher, [client.bearer_id]))[client.bearer_id]
    await db.execute("UPDATE bearers SET previous_signing_secret_expires_at = now()")
    after = (await callback_credentials(db, cipher, [client.bearer_id]))[client.bearer_id]

    expires_after = rotated.previous_expires_at.ToDatetime(tzinfo=UTC) - before
    assert timedelta(hours=24) <= expires_after < timedelta(hours=24, seconds=10)
    assert rotated.signing_secret != client.signing_secret
    assert during.signing_secrets == (rotated.signing_secret, client.signing_secret)
    assert after.signing_secrets == (rotated.signing_secret,)


async def test_second_rotation_drops_the_oldest_secret(client: Client, db: Database, cipher: Cipher) -> None:
    rotated = [
        (await client.bearers.RotateSigningSecret(pb.RotateSigningSecretRequest(), metadata=client.metadata))
        for _ in range(2)
    ]

    credentials = (await callback_credentials(db, cipher, [client.bearer_id]))[client.bearer_id]

    assert credentials.signing_secrets == (rotated[1].signing_secret, rotated[0].signing_secret)


async def test_credentials_do_not_print(client: Client, db: Database, cipher: Cipher) -> None:
    credentials = (await callback_credentials(db, cipher, [client.bearer_id]))[client.bearer_id]

    assert credentials.password == "callback-password"
    assert credentials.password not in repr(credentials)
    assert client.signing_secret not in repr(credentials)


async def test_deleted_bearer_has_no_credentials_left(
    admin: Client, client: Client, db: Database, cipher: Cipher
) -> None:
    await client.bearers.RotateSigningSecret(pb.RotateSigningSecretRequest(), metadata=client.metadata)

    await admin.bearers.DeleteBearer(pb.DeleteBearerRequest(id=client.bearer_id), metadata=admin.metadata)

    erased = """
        SELECT (password_encrypted, signing_secret_encrypted, previous_signing_secret_encrypted) IS NULL
        FROM bearers WHERE id = %(id)s
    """
    assert await read(db, erased, id=client.bearer_id)
    assert await read(db, "SELECT count(*) FROM api_keys WHERE bearer_id = %(id)s", id=client.bearer_id) == 0
    assert await callback_credentials(db, cipher, [client.bearer_id, admin.bearer_id]) == {
        admin.bearer_id: (await callback_credentials(db, cipher, [admin.bearer_id]))[admin.bearer_id]
    }
    await until_ended(client)


async def test_deleted_bearer_cannot_be_deleted_changed_or_read_again(admin: Client, client: Client) -> None:
    request = pb.DeleteBearerRequest(id=client.bearer_id)
    await admin.bearers.DeleteBearer(request, metadata=admin.metadata)

    for call in (
        admin.bearers.DeleteBearer(request, metadata=admin.metadata),
        admin.bearers.GetBearer(pb.GetBearerRequest(id=client.bearer_id), metadata=admin.metadata),
        admin.bearers.UpdateBearer(pb.UpdateBearerRequest(id=client.bearer_id, username="u"), metadata=admin.metadata),
    ):
        assert (await refused(call)).reason == "BEARER_NOT_FOUND"


async def test_accepted_messages_of_a_deleted_bearer_stay_due(admin: Client, client: Client, db: Database) -> None:
    await make_messaging_service(db)
    message = await create_message(client)

    await admin.bearers.DeleteBearer(pb.DeleteBearerRequest(id=client.bearer_id), metadata=admin.metadata)

    due = "SELECT due_at <= now() FROM messages WHERE message_uuid = %(uuid)s"
    assert await read(db, due, uuid=message.message_uuid)


async def test_repeated_create_answers_the_same_bearer(admin: Client, db: Database) -> None:
    made = await asyncio.gather(*(create(admin, request_id="once") for _ in range(20)))

    assert len({bearer.SerializeToString(deterministic=True) for bearer in made}) == 1
    assert await read(db, "SELECT count(*) FROM bearers WHERE bearer_name = 'school-app'") == 1


async def test_replayed_create_says_so(admin: Client) -> None:
    told = []
    for _ in range(2):
        call = admin.bearers.CreateBearer(new_bearer(request_id="once"), metadata=admin.metadata)
        await call
        told.append(dict(await call.initial_metadata()))

    assert [metadata.get("idempotent-replayed") for metadata in told] == [None, "true"]


async def test_request_id_in_the_header_is_the_one_in_the_body(admin: Client) -> None:
    metadata = (*admin.metadata, ("idempotency-key", "once"))

    by_header = await admin.bearers.CreateBearer(new_bearer(), metadata=metadata)
    by_body = await create(admin, request_id="once")
    by_both = await admin.bearers.CreateBearer(new_bearer(request_id="once"), metadata=metadata)

    assert by_header == by_body == by_both


async def test_request_id_that_differs_from_the_header_is_refused(admin: Client) -> None:
    metadata = (*admin.metadata, ("idempotency-key", "other"))

    answer = await refused(admin.bearers.CreateBearer(new_bearer(request_id="once"), metadata=metadata))

    assert answer.fields == ("request_id",)


async def test_over_long_header_is_refused(admin: Client) -> None:
    metadata = (*admin.metadata, ("idempotency-key", "x" * 256))

    answer = await refused(admin.bearers.CreateBearer(new_bearer(), metadata=metadata))

    assert answer.fields == ("Idempotency-Key",)


async def test_request_id_of_another_body_is_refused_for_24_hours(admin: Client, db: Database) -> None:
    first = await create(admin, request_id="once")

    answer = await refused(
        admin.bearers.CreateBearer(new_bearer(username="other", request_id="once"), metadata=admin.metadata)
    )
    await db.execute("UPDATE idempotency_keys SET created_at = now() - interval '24 hours 1 second'")
    second = await create(admin, username="other", request_id="once")

    assert (answer.code, answer.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
    assert answer.metadata == {"request_id": "once"}
    assert second.id != first.id
    assert await create(admin, username="other", request_id="once") == second


async def test_refused_create_leaves_its_request_id_free(admin: Client) -> None:
    await refused(admin.bearers.CreateBearer(new_bearer(password="", request_id="once"), metadata=admin.metadata))

    assert (await create(admin, request_id="once")).id


async def test_request_ids_are_each_bearers_own(client_of: MakeClient) -> None:
    admins = [await client_of(BearerType.ADMIN) for _ in range(2)]

    made = [await create(admin, request_id="once") for admin in admins]

    assert made[0].id != made[1].id


async def test_deleted_bearers_key_ends_at_once_on_every_process(
    admin: Client, client: Client, api: Api, settings: Settings
) -> None:
    async with (
        running_api(settings, listen="127.0.0.1:0") as second,
        grpc.aio.insecure_channel(f"127.0.0.1:{second.port}") as channel,
    ):
        there = client_with(channel, bearer_id=client.bearer_id, token=client.token)
        for caller in (client, there):
            for _ in range(3):  # known to each process's memory
                await caller.bearers.GetCurrentBearer(pb.GetCurrentBearerRequest(), metadata=caller.metadata)

        await admin.bearers.DeleteBearer(pb.DeleteBearerRequest(id=client.bearer_id), metadata=admin.metadata)

        await until_ended(there)
        await until_ended(client)


async def test_process_that_cannot_hear_asks_the_database(client: Client, db: Database, settings: Settings) -> None:
    others = set(await listeners(db))
    async with (
        running_api(settings, listen="127.0.0.1:0") as deaf,
        grpc.aio.insecure_channel(f"127.0.0.1:{deaf.port}") as channel,
    ):
        there = client_with(channel, bearer_id=client.bearer_id, token=client.token)
        async with asyncio.timeout(30):
            while not (own := set(await listeners(db)) - others):
                await there.bearers.GetCurrentBearer(pb.GetCurrentBearerRequest(), metadata=there.metadata)
        await there.bearers.GetCurrentBearer(pb.GetCurrentBearerRequest(), metadata=there.metadata)

        # The key ends without a notification, as if that had been sent while nobody was listening.
        [pid] = own
        async with db.connection() as deleting, nobody_connects(db) as terminating:
            await terminating.execute("SELECT pg_terminate_backend(%s, 1000)", [pid])
            await deleting.execute("DELETE FROM api_keys")

            await until_ended(there)


@asynccontextmanager
async def nobody_connects(db: Database) -> AsyncIterator[AsyncConnection[TupleRow]]:
    """While the block lasts, whoever connects to the database waits; the connections that there are go on."""
    async with db.connection() as connection, connection.transaction():
        await connection.execute("LOCK TABLE pg_authid")
        yield connection


async def listeners(db: Database) -> list[int]:
    query = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'LISTEN%%' AND datname = current_database()"
    return await db.fetch_all(query, {}, scalar_row)
