"""Messaging services that Bandwidth carries, where it is configured and where it is not."""

from collections.abc import AsyncIterator

import grpc.aio
import pytest
from commonservices.v1 import messaging_service_service_pb2 as pb
from pydantic import SecretStr

from server.api import Api, running_api
from server.caller import BearerType
from server.config import Settings
from server.db import Database
from server.encryption import Cipher
from tests.clients import Client, make_client, refused
from tests.numbers.support import create, get, new_service, numbers, update

SERVICE = {"provider": "bandwidth", "twilio_messaging_sid": "", "bandwidth_messaging_sid": "application"}
BANDWIDTH = {
    "bandwidth_account_id": "account",
    "bandwidth_client_id": "CLI-1",
    "bandwidth_client_secret": SecretStr("secret"),
    "bandwidth_callback_username": "bandwidth",
    "bandwidth_callback_password": SecretStr("callback-password"),
}


@pytest.fixture(scope="session")
async def _apis(settings: Settings) -> AsyncIterator[dict[bool, Api]]:
    """An API with Bandwidth and one without."""
    without = settings.model_copy(update=dict.fromkeys(BANDWIDTH))
    async with (
        running_api(settings.model_copy(update=BANDWIDTH), listen="127.0.0.1:0") as configured,
        running_api(without, listen="127.0.0.1:0") as unconfigured,
    ):
        yield {True: configured, False: unconfigured}


@pytest.fixture
async def admin(_apis: dict[bool, Api], db: Database, cipher: Cipher) -> AsyncIterator[Client]:
    """An Admin where Bandwidth is configured."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{_apis[True].port}") as channel:
        yield await make_client(channel, db, cipher, bearer_type=BearerType.ADMIN, callback_url=None)


@pytest.fixture
async def twilio_admin(_apis: dict[bool, Api], db: Database, cipher: Cipher) -> AsyncIterator[Client]:
    """An Admin where it is not."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{_apis[False].port}") as channel:
        yield await make_client(channel, db, cipher, bearer_type=BearerType.ADMIN, callback_url=None)


async def test_service_of_bandwidth_needs_no_sid_of_twilio(admin: Client) -> None:
    made = await create(admin, **SERVICE)

    assert (made.provider, made.bandwidth_messaging_sid) == ("bandwidth", "application")
    assert not made.HasField("twilio_messaging_sid")
    assert await get(admin, made.uuid) == made


async def test_provider_needs_its_own_sid(admin: Client) -> None:
    admin_create = admin.messaging_services.AdminCreateMessagingService
    bandwidth = new_service(provider="bandwidth", bandwidth_messaging_sid="")
    twilio = new_service(provider="twilio", twilio_messaging_sid="")
    plain = pb.CreateMessagingServiceRequest(global_customer_id="c", provider="bandwidth", twilio_messaging_sid="MG1")

    assert (await refused(admin_create(bandwidth, metadata=admin.metadata))).fields == ("bandwidth_messaging_sid",)
    assert (await refused(admin_create(twilio, metadata=admin.metadata))).fields == ("twilio_messaging_sid",)
    answer = await refused(admin.messaging_services.CreateMessagingService(plain, metadata=admin.metadata))
    assert answer.fields == ("bandwidth_messaging_sid",)


async def test_change_of_provider_needs_the_sid_of_the_new_one(admin: Client) -> None:
    made = await create(admin, bandwidth_messaging_sid="")

    without = await refused(update(admin, made.uuid, provider="bandwidth", name="x"))
    changed = await update(admin, made.uuid, provider="bandwidth", bandwidth_messaging_sid="application")
    back = await update(admin, made.uuid, provider="twilio")

    assert without.fields == ("bandwidth_messaging_sid",)
    assert (changed.name, changed.provider, changed.bandwidth_messaging_sid) == ("school", "bandwidth", "application")
    assert (back.provider, back.twilio_messaging_sid) == ("twilio", "MG1")


async def test_numbers_that_went_over_to_another_provider_are_there_again(admin: Client, db: Database) -> None:
    made = await create(admin, twilio_numbers_attributes=numbers("+12065550100", "+12065550101"))
    await db.execute("UPDATE twilio_numbers SET released_at = now()")

    renamed = await update(admin, made.uuid, name="renamed")
    changed = await update(admin, made.uuid, provider="bandwidth")

    assert [number.HasField("released_at") for number in renamed.twilio_numbers] == [True, True]
    assert [number.HasField("released_at") for number in changed.twilio_numbers] == [False, False]


async def test_provider_that_is_not_configured_is_refused(twilio_admin: Client) -> None:
    made = await create(twilio_admin)

    by_create = await refused(
        twilio_admin.messaging_services.AdminCreateMessagingService(
            new_service(**SERVICE), metadata=twilio_admin.metadata
        )
    )
    by_update = await refused(update(twilio_admin, made.uuid, provider="bandwidth"))

    assert by_create.fields == by_update.fields == ("provider",)
    assert await get(twilio_admin, made.uuid) == made
