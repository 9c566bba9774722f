"""Files of a local folder, for whoever has their signed URL."""

from datetime import datetime

from server.errors import NotFound, PermissionDenied, Unavailable
from server.storage import FileMissing, Storage, StorageFailed, StoredFile, UrlSigner


class FileUrlInvalid(PermissionDenied):
    """The URL was not given out by this service, or its time is over."""

    reason = "FILE_URL_INVALID"


class FileNotFound(NotFound):
    """The URL is good, but its file is gone."""

    reason = "FILE_NOT_FOUND"


async def open_file(
    storage: Storage, signer: UrlSigner, *, kind: str, name: str, expires: int, signature: str, now: datetime
) -> StoredFile:
    """The file that a signed URL names. Nothing is looked for before the signature holds."""
    key = f"{kind}/{name}"
    if not signer.holds(key, expires=expires, signature=signature):
        raise FileUrlInvalid("the URL was not given out by this service", kind=kind, name=name)
    if now.timestamp() >= expires:
        raise FileUrlInvalid("the URL has expired; ask for the resource again", kind=kind, name=name)
    try:
        return await storage.open(key)
    except FileMissing as error:
        raise FileNotFound("the file is not there any more", kind=kind, name=name) from error
    except StorageFailed as error:
        raise Unavailable("the file cannot be read now; try again") from error
