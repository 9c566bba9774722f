"""A real Envoy in front of api servers, on ports that the system chooses where the test does not."""

import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from server import envoy

_START_SECONDS = 20.0


@dataclass(frozen=True)
class Front:
    """Where the public port is, and Envoy's own."""

    target: str
    admin_url: str

    @property
    def url(self) -> str:
        """Of REST."""
        return f"http://{self.target}"


@asynccontextmanager
async def running_envoy(
    api: Sequence[str],
    *,
    port: int = 0,
    requests_per_second: int = envoy.REQUESTS_PER_SECOND,
    answer_seconds: float = envoy.ANSWER_SECONDS,
) -> AsyncIterator[Front]:
    """Envoy as the stack runs it, until the block ends. It is up, but may not have found the api healthy yet."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "envoy.yaml")
        admin = Path(folder, "admin")
        _write(
            config,
            envoy.render(
                listen=f"127.0.0.1:{port}",
                api=api,
                admin_port=0,
                descriptor=envoy.DESCRIPTOR,
                requests_per_second=requests_per_second,
                answer_seconds=answer_seconds,
            ),
        )
        options = ["--disable-hot-restart", "--concurrency", "1", "-l", "warning", "--admin-address-path", str(admin)]
        process = await asyncio.create_subprocess_exec(
            envoy.binary(None), "-c", str(config), *options, stdin=asyncio.subprocess.DEVNULL, stdout=sys.stderr
        )
        try:
            async with asyncio.timeout(_START_SECONDS):
                front = await _front(process, admin)
            yield front
        finally:
            process.terminate()
            await process.wait()


async def until_healthy(front: Front, count: int) -> None:
    """Wait until Envoy sends calls to that many api processes."""
    async with aiohttp.ClientSession() as session, asyncio.timeout(_START_SECONDS):
        while True:
            async with session.get(f"{front.admin_url}/clusters?format=json") as answer:
                clusters = json.loads(await answer.read())["cluster_statuses"]
            health = [host["health_status"] for cluster in clusters for host in cluster.get("host_statuses", [])]
            if sum(status == {"eds_health_status": "HEALTHY"} for status in health) == count:
                return
            await asyncio.sleep(0.02)


async def _front(process: asyncio.subprocess.Process, admin: Path) -> Front:
    async with aiohttp.ClientSession() as session:
        while process.returncode is None:
            await asyncio.sleep(0.02)
            address = _read(admin)
            if ":" not in address:
                continue
            admin_url = f"http://{address}"
            async with session.get(f"{admin_url}/listeners?format=json") as answer:
                listeners = json.loads(await answer.read()).get("listener_statuses")
            if listeners:
                listening = listeners[0]["local_address"]["socket_address"]
                return Front(f"{listening['address']}:{listening['port_value']}", admin_url)
    raise AssertionError(f"Envoy ended with {process.returncode}")


def _write(path: Path, text: str) -> None:
    path.write_text(text)


def _read(path: Path) -> str:
    return path.read_text().strip() if path.exists() else ""
