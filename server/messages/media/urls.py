"""Where the stored media of a message are found, for a while."""

from collections.abc import Sequence
from datetime import timedelta

from commonservices.v1 import message_pb2 as pb

from server.errors import Unavailable
from server.messages import convert
from server.messages.message import Message
from server.storage import Storage, StorageFailed

GOOD_FOR = timedelta(hours=24)


async def message_with_media(storage: Storage, message: Message) -> pb.Message:
    """The message as the API and its events show it, with URLs that are signed now."""
    return convert.message_to_proto(message, await media_file_urls(storage, message.stored_media))


async def media_file_urls(storage: Storage, stored_media: Sequence[str]) -> list[str]:
    """A URL for each key of our storage; a URL of somebody else's storage is shown as it is."""
    return [
        stored if stored.startswith(("http://", "https://")) else await _signed(storage, stored)
        for stored in stored_media
    ]


async def _signed(storage: Storage, key: str) -> str:
    try:
        return await storage.url(key, expires_in=GOOD_FOR)
    except StorageFailed as error:
        raise Unavailable("the URLs of media cannot be signed now; try again") from error
