"""Where the stored media of a message are found, for a while."""

from collections.abc import Sequence

from commonservices.v1 import message_pb2 as pb

from server.file_urls import file_urls
from server.messages import convert
from server.messages.message import Message
from server.storage import Storage


async def message_with_media(storage: Storage, message: Message) -> pb.Message:
    """The message as the API and its events show it, with URLs that are signed now."""
    return convert.message_to_proto(message, await media_file_urls(storage, message.stored_media))


async def media_file_urls(storage: Storage, stored_media: Sequence[str]) -> list[str]:
    """A URL for each key of our storage; a URL of somebody else's storage is shown as it is."""
    urls = await file_urls(storage, [stored for stored in stored_media if not _is_elsewhere(stored)])
    return [stored if _is_elsewhere(stored) else urls[stored] for stored in stored_media]


def _is_elsewhere(stored: str) -> bool:
    return stored.startswith(("http://", "https://"))
