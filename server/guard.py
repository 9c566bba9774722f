"""The SSRF guard: no connection to an address that is not public, unless the configuration allows it.

It stands where the socket is made, so it sees the address that is dialled, at every dial, however the URL spelled it
and whatever its name resolved to before.
"""

import asyncio
import socket
from collections.abc import Sequence
from concurrent.futures import Future
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from threading import Thread
from typing import Any

from aiohttp import AddrInfoType, TCPConnector
from aiohttp.abc import AbstractResolver, ResolveResult

from server.config import Network

# Refused: addresses of no host, of this host, of local networks, of documentation, of groups, and those that carry
# another address within them (6to4, NAT64, IPv4-compatible).
_REFUSED = tuple(
    ip_network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "::/96",
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "100::/64",
        "100:0:0:1::/64",
        "2001::/23",
        "2001:db8::/32",
        "2002::/16",
        "3fff::/20",
        "5f00::/16",
        "fc00::/7",
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
    )
)

_DNS_THREADS = 64
_DNS_CACHE_SECONDS = 10

# What getaddrinfo finds: family, kind, protocol, canonical name, address.
_Found = tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[Any, ...]]


class BlockedAddress(OSError):
    """The dialled address is not public."""

    def __init__(self, address: str) -> None:
        super().__init__(f"{address} is not a public address")


def is_allowed(address: str, allowed_networks: Sequence[Network]) -> bool:
    """Whether a connection may be made to this address."""
    unwrapped = _unwrapped(address)
    if any(unwrapped in network for network in allowed_networks):
        return True
    return not any(unwrapped in network for network in _REFUSED)


def guarded_connector(allowed_networks: Sequence[Network]) -> TCPConnector:
    """A connector without limits of its own, so that no host waits for a connection of another's."""

    def dial(info: AddrInfoType) -> socket.socket:
        family, kind, protocol, _, target = info
        address = str(target[0])
        if not is_allowed(address, allowed_networks):
            raise BlockedAddress(address)
        return socket.socket(family, kind, protocol)

    return TCPConnector(limit=0, socket_factory=dial, resolver=_Resolver(), ttl_dns_cache=_DNS_CACHE_SECONDS)


def _unwrapped(address: str) -> IPv4Address | IPv6Address:
    ip = ip_address(address.partition("%")[0])
    return ip.ipv4_mapped or ip if isinstance(ip, IPv6Address) else ip


class _Resolver(AbstractResolver):
    """The system's resolver on threads enough that names whose servers are silent do not delay the others.

    Each look-up has a thread of its own: the end of a process waits for all that an executor has begun.
    """

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(_DNS_THREADS)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        await self._free.acquire()
        found = await asyncio.wrap_future(self._look_up(host, port, family))
        return [
            ResolveResult(
                hostname=host,
                host=str(target[0]),
                port=port,
                family=found_family,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for found_family, _, protocol, _, target in found
        ]

    def _look_up(self, host: str, port: int, family: socket.AddressFamily) -> Future[Sequence[_Found]]:
        """Frees its place when there is an answer, whether anybody still waits for it or not."""
        loop = asyncio.get_running_loop()
        answer: Future[Sequence[_Found]] = Future()
        answer.set_running_or_notify_cancel()

        def free(_answer: Future[Sequence[_Found]]) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._free.release)

        def look_up() -> None:
            try:
                found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, 0, socket.AI_ADDRCONFIG)
            except Exception as error:  # noqa: BLE001 it is the answer
                answer.set_exception(error)
            else:
                answer.set_result(found)

        answer.add_done_callback(free)
        try:
            Thread(target=look_up, name=f"look-up-{host}", daemon=True).start()
        except RuntimeError as error:
            # There may be no more threads. To aiohttp an OSError is a name that was not found.
            answer.set_exception(OSError(str(error)))
        return answer

    async def close(self) -> None:
        """Nothing is kept: a connector that closes cancels who waits, and threads end with their look-ups."""
