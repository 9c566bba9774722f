"""What the tests of files share."""

from urllib.parse import parse_qs, urlsplit

from commonservices.v1 import file_service_pb2

from server.config import Settings
from server.storage import UrlSigner


def signer_of(settings: Settings) -> UrlSigner:
    """What processes with these settings sign with."""
    return UrlSigner(settings.public_base_url, [key.get_secret_value() for key in settings.encryption_keys])


def path_of(url: str) -> str:
    """Path and query of a URL."""
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}"


def request_of(url: str) -> file_service_pb2.GetFileRequest:
    """The gRPC request that a URL stands for."""
    parts = urlsplit(url)
    kind, _, name = parts.path.removeprefix("/api/v1/files/").partition("/")
    query = parse_qs(parts.query)
    return file_service_pb2.GetFileRequest(
        kind=kind, name=name, expires=int(query["expires"][0]), signature=query["signature"][0]
    )
