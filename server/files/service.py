"""gRPC handler of files."""

from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

import grpc.aio
from commonservices.v1 import file_service_pb2 as pb
from commonservices.v1 import file_service_pb2_grpc
from google.api import httpbody_pb2

from server.files.files import open_file
from server.storage import Storage, UrlSigner, disposition

Context = grpc.aio.ServicerContext[Any, Any]


class FileService(file_service_pb2_grpc.FileServiceServicer):
    """Files, a piece at a time."""

    def __init__(self, storage: Storage, signer: UrlSigner) -> None:
        self._storage = storage
        self._signer = signer

    async def GetFile(  # type: ignore[override]  # streams are written, see `rpc/edge.py`
        self, request: pb.GetFileRequest, context: Context
    ) -> None:
        now = datetime.now(UTC)
        file = await open_file(
            self._storage,
            self._signer,
            kind=request.kind,
            name=request.name,
            expires=request.expires,
            signature=request.signature,
            now=now,
        )
        async with aclosing(file.chunks) as chunks:
            # Files come from strangers: a browser takes none for anything else than it is said to be.
            await context.send_initial_metadata(
                (
                    ("x-content-type-options", "nosniff"),
                    ("content-disposition", disposition(file.content_type)),
                    # A file never changes; but nobody is shown it for longer than its URL is good.
                    ("cache-control", f"private, max-age={int(request.expires - now.timestamp())}"),
                )
            )
            # Apart from the data, of which an empty file has none.
            await context.write(httpbody_pb2.HttpBody(content_type=file.content_type))
            async for chunk in chunks:
                await context.write(httpbody_pb2.HttpBody(data=chunk))
