"""Whether the API can do its work."""

from typing import Any

import grpc.aio
from commonservices.v1 import status_service_pb2, status_service_pb2_grpc

from server.db import Database

Context = grpc.aio.ServicerContext[Any, Any]


class StatusService(status_service_pb2_grpc.StatusServiceServicer):
    """Asks the database, because without it nothing works."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def GetStatus(
        self, request: status_service_pb2.GetStatusRequest, context: Context
    ) -> status_service_pb2.Status:
        await self._db.execute("SELECT 1")
        return status_service_pb2.Status(message="OK")
