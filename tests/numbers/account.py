"""The provider's account as an operator changes it, and our numbers as they stand."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from psycopg.rows import class_row, dict_row

from server.accounts import bearers
from server.caller import BearerType
from server.conversations.tables import ConversationRow, PairingRow, ParticipantRow
from server.db import Database
from server.encryption import Cipher
from server.numbers.sync import Change, Changes, NumberSync
from server.providers.sandbox.carrier import phone_number_sid
from server.providers.sandbox.journal import Journal
from server.providers.sandbox.settings import MESSAGING_SERVICE_SID, OWNED_NUMBERS
from server.providers.twilio.numbers import TwilioNumberDirectory
from tests.factories import make_messaging_service
from tests.providers.servers import Sandbox, twilio_account

FIRST = MESSAGING_SERVICE_SID
SECOND = "MG00000000000000000000000000000002"
CONTACT = "+14155550123"

SEATTLE, OTHER, AUSTIN = OWNED_NUMBERS[0], OWNED_NUMBERS[1], OWNED_NUMBERS[10]
TOLL_FREE = "+18885550100"

NOTHING: Changes = {change: [] for change in Change}


def give_second_service(data_dir: Path) -> None:
    """Have the account of a sandbox that is about to start own a second messaging service, without numbers."""
    journal = Journal(data_dir / "journal")
    journal.open()
    journal.put("services", SECOND, {"sid": SECOND, "friendly_name": "second", "created": 0.0, "number_sids": []})
    journal.close()


@dataclass(frozen=True)
class Account:
    """The account at the sandbox."""

    sandbox: Sandbox

    async def buy(self, number: str) -> None:
        """A number that is in no messaging service."""
        await self.sandbox.control("PUT", f"numbers/{number}")

    async def release(self, *numbers: str) -> None:
        """Numbers that are the account's no more."""
        for number in numbers:
            await self.sandbox.control("DELETE", f"numbers/{number}")

    async def release_all(self) -> None:
        """Every number."""
        await self.release(*OWNED_NUMBERS)

    async def join(self, service_sid: str, number: str) -> None:
        """Put a number into a messaging service."""
        form = {"PhoneNumberSid": phone_number_sid(number)}
        status, _ = await self.sandbox.rest("POST", f"/v1/Services/{service_sid}/PhoneNumbers", data=form)
        assert status == 201

    async def leave(self, service_sid: str, number: str) -> None:
        """Take a number out of a messaging service."""
        sid = phone_number_sid(number)
        status, _ = await self.sandbox.rest("DELETE", f"/v1/Services/{service_sid}/PhoneNumbers/{sid}")
        assert status == 204

    async def questions(self) -> int:
        """How many requests for lists of numbers it has had."""
        requests = (await self.sandbox.control("GET", "requests", params={"method": "GET"}))["requests"]
        return sum("PhoneNumbers" in request["path"] for request in requests)


@dataclass(frozen=True)
class Number:
    """One of ours."""

    service: str | None
    state_code: str | None
    phone_number_sid: str | None
    is_released: bool


@dataclass(frozen=True)
class _Row:
    phone_number: str
    service: str | None
    state_code: str | None
    phone_number_sid: str | None
    is_released: bool


_NUMBERS = """
SELECT n.phone_number, m.name AS service, n.state_code, n.phone_number_sid, n.released_at IS NOT NULL AS is_released
FROM twilio_numbers n LEFT JOIN messaging_services m ON m.id = n.messaging_service_id
"""


async def numbers_of(db: Database) -> dict[str, Number]:
    """Every number of ours, with the name of its service."""
    return {
        row.phone_number: Number(row.service, row.state_code, row.phone_number_sid, row.is_released)
        for row in await db.fetch_all(_NUMBERS, {}, class_row(_Row))
    }


async def sync_row(db: Database) -> Mapping[str, object]:
    """What is written of the synchronisation; `waits` is how many seconds it waits for the next."""
    query = "SELECT *, extract(epoch FROM due_at - now())::float AS waits FROM number_syncs WHERE provider = 'twilio'"
    row = await db.fetch_one(query, {}, dict_row)
    assert row is not None
    return row


async def pair(db: Database, cipher: Cipher, twilio_number: str, phone_number: str = CONTACT) -> None:
    """An active pairing, in a conversation of a new bearer."""
    async with db.begin() as tx:
        bearer, _secret = await bearers.create_bearer(
            tx,
            cipher=cipher,
            bearer_name="a bearer",
            bearer_type=BearerType.APPLICATION,
            callback_url=None,
            username="user",
            password="password",
        )
        conversation = ConversationRow(bearer_id=bearer.id, client_conversation_id="conversation")
        tx.add(conversation)
        await tx.flush()
        participant = ParticipantRow(
            conversation_id=conversation.id, role="contact", phone_number=phone_number, twilio_number=twilio_number
        )
        tx.add(participant)
        await tx.flush()
        tx.add(
            PairingRow(
                twilio_number=twilio_number,
                phone_number=phone_number,
                participant_id=participant.id,
                conversation_id=conversation.id,
            )
        )


async def pairings(db: Database) -> list[Mapping[str, object]]:
    """The active pairings, whole."""
    return [*await db.fetch_all("SELECT * FROM pairings ORDER BY twilio_number", {}, dict_row)]


@asynccontextmanager
async def synchronising(db: Database, base_url: str, *, page_size: int = 7) -> AsyncIterator[NumberSync]:
    """As a worker does it, at this address."""
    directory = TwilioNumberDirectory(twilio_account(base_url), page_size=page_size)
    try:
        yield NumberSync(db, directory)
    finally:
        await directory.aclose()


async def make_services(db: Database) -> None:
    """Ours that the account has, without numbers."""
    await make_messaging_service(db, name="first", twilio_messaging_sid=FIRST, phone_numbers=())
    await make_messaging_service(db, name="second", twilio_messaging_sid=SECOND, phone_numbers=())
