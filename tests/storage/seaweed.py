"""A real S3 service: SeaweedFS on ports of its own, until the block ends or this process does."""

import asyncio
import hashlib
import hmac
import json
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit
from xml.etree import ElementTree

import aiohttp

from server.stack.ports import free_port
from server.stack.processes import Process

ACCESS_KEY = "access-key"
SECRET_KEY = "secret-key"
REGION = "us-west-2"
_START_SECONDS = 60

_PORTS = [f"{part}.port{protocol}" for part in ("master", "volume", "filer", "s3") for protocol in ("", ".grpc")]


@asynccontextmanager
async def running_seaweed(folder: Path) -> AsyncIterator[str]:
    """The endpoint of an S3 service that knows one identity, which may do everything, and no bucket."""
    config = _identities(folder)
    ports = {name: free_port() for name in _PORTS}
    process = Process(
        name="seaweed",
        command=[
            str(Path(sys.executable).with_name("weed")),
            "server",
            f"-dir={folder}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-s3",
            f"-s3.config={config}",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-master.telemetry=false",
            "-master.volumeSizeLimitMB=64",
            *(f"-{name}={port}" for name, port in ports.items()),
        ],
        log=folder / "log",
        folder=folder,
        stop_signal=signal.SIGKILL,
    )
    endpoint = f"http://127.0.0.1:{ports['s3.port']}"
    process.start()
    try:
        async with asyncio.timeout(_START_SECONDS):
            await _until_ready(process, endpoint)
        yield endpoint
    finally:
        process.ask_to_stop()
        process.wait_stopped(until=time.monotonic() + _START_SECONDS)
        _remove_sockets(set(ports.values()))


async def unfinished_uploads(http: aiohttp.ClientSession, endpoint: str, bucket: str) -> int:
    """How many uploads in parts were begun and neither finished nor aborted: whoever has the bucket pays for them."""
    headers = _signed(endpoint, f"/{bucket}", "uploads=")
    async with http.get(f"{endpoint}/{bucket}?uploads=", headers=headers) as answer:
        assert answer.status == 200
        listed = ElementTree.fromstring(await answer.text())  # noqa: S314 our own server's
    return len(listed.findall("{*}Upload"))


def _signed(endpoint: str, path: str, query: str) -> dict[str, str]:
    """What proves a GET without a body, as AWS has it signed (Signature Version 4)."""
    at = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    headers = {"x-amz-content-sha256": hashlib.sha256(b"").hexdigest(), "x-amz-date": at}
    signed = {"host": urlsplit(endpoint).netloc, **headers}
    lines = "".join(f"{name}:{value}\n" for name, value in signed.items())
    request = "\n".join(["GET", path, query, lines, ";".join(signed), headers["x-amz-content-sha256"]])
    scope = f"{at[:8]}/{REGION}/s3/aws4_request"
    key = f"AWS4{SECRET_KEY}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    text = "\n".join(["AWS4-HMAC-SHA256", at, scope, hashlib.sha256(request.encode()).hexdigest()])
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    credential = f"Credential={ACCESS_KEY}/{scope}, SignedHeaders={';'.join(signed)}, Signature={signature}"
    return {**headers, "Authorization": f"AWS4-HMAC-SHA256 {credential}"}


async def _until_ready(process: Process, endpoint: str) -> None:
    async with aiohttp.ClientSession() as session:
        while process.exit_code() is None:
            try:
                async with session.get(f"{endpoint}/healthz") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(0.05)
    raise AssertionError(process.last_log_line())


def _identities(folder: Path) -> Path:
    config = folder / "identities.json"
    credentials = [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]
    identity = {"name": "common-services", "credentials": credentials, "actions": ["Admin", "Read", "Write", "List"]}
    config.write_text(json.dumps({"identities": [identity]}))
    return config


def _remove_sockets(ports: set[int]) -> None:
    """Its sockets beside the ports, which it leaves behind."""
    for socket in Path("/tmp").glob("seaweedfs-*.sock"):  # noqa: S108 it has no setting for most of them
        if int(socket.stem.rpartition("-")[2]) in ports:
            socket.unlink()
