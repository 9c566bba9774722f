"""Which addresses a connection may be made to."""

import asyncio
import subprocess
import sys
from ipaddress import IPv4Address, ip_network
from pathlib import Path

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.guard import guarded_connector, is_allowed
from tests.webhooks.receiver import running_receiver

REFUSED_IPV4 = [
    "0.0.0.0",  # noqa: S104 an address to refuse
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.127.255.255",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.8",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.7",
    "203.0.113.7",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
]
REFUSED_IPV6 = [
    "::",
    "::1",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::808:808",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:808:808::1",
    "3fff::1",
    "3fff:fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
]
PUBLIC = ["8.8.8.8", "1.1.1.1", "172.32.0.1", "100.128.0.1", "192.0.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8"]


@pytest.mark.parametrize("address", REFUSED_IPV4 + REFUSED_IPV6)
def test_address_that_is_not_public_is_refused(address: str) -> None:
    assert not is_allowed(address, ())


@pytest.mark.parametrize("address", REFUSED_IPV4)
def test_address_is_refused_in_its_ipv6_form_too(address: str) -> None:
    assert not is_allowed(f"::ffff:{address}", ())


@pytest.mark.parametrize("address", PUBLIC)
def test_public_address_is_allowed(address: str) -> None:
    assert is_allowed(address, ())


@pytest.mark.parametrize("address", ["10.1.2.3", "::ffff:10.1.2.3"])
def test_configured_network_is_allowed_and_no_other(address: str) -> None:
    networks = (ip_network("10.1.2.0/24"),)

    assert is_allowed(address, networks)
    assert not is_allowed("10.1.3.1", networks)
    assert not is_allowed("127.0.0.1", networks)


@given(address=st.ip_addresses(v=4))
def test_what_is_not_global_is_never_allowed(address: IPv4Address) -> None:
    assert address.is_global or not is_allowed(str(address), ())


@given(address=st.ip_addresses())
def test_what_is_local_is_never_allowed(address: IPv4Address) -> None:
    is_local = address.is_private or address.is_loopback or address.is_link_local or address.is_multicast
    assert not is_local or not is_allowed(str(address), ())


@pytest.mark.parametrize("allowed", [True, False])
async def test_addresses_of_a_name_are_judged(allowed: bool) -> None:
    connector = guarded_connector([ip_network("127.0.0.0/8")] if allowed else [])
    async with running_receiver() as receiver, aiohttp.ClientSession(connector=connector) as session:
        asked = session.post(receiver.url(host="localhost"), headers={"webhook-id": "1"})
        (outcome,) = await asyncio.gather(asked, return_exceptions=True)

        assert isinstance(outcome, aiohttp.ClientResponse if allowed else aiohttp.ClientConnectorError)
        assert len(receiver.received) == allowed


@pytest.mark.parametrize("name", ["nobody.invalid", "x" * 64 + ".example"])
async def test_name_that_cannot_be_looked_up_is_an_error_of_the_call(name: str) -> None:
    async with aiohttp.ClientSession(connector=guarded_connector([])) as session:
        with pytest.raises((aiohttp.ClientConnectorError, ValueError)):
            await session.get(f"http://{name}/")


_ASKS_IN_VAIN = """
import asyncio, sys, time
import aiohttp
from server.guard import guarded_connector

# As where a name's servers are silent.
sys.addaudithook(lambda event, _: event == "socket.getaddrinfo" and time.sleep(300))

async def ask(session, number):
    async with session.get(f"http://silent-{number}.example/"):
        pass

async def main():
    timeout = aiohttp.ClientTimeout(total=0.2)
    async with aiohttp.ClientSession(connector=guarded_connector([]), timeout=timeout) as session:
        failed = await asyncio.gather(*(ask(session, n) for n in range(100)), return_exceptions=True)
    print({type(error).__name__ for error in failed})

asyncio.run(main())
"""


def test_process_ends_without_the_answers_that_it_no_longer_waits_for() -> None:
    root = Path(__file__).parent.parent
    ended = subprocess.run([sys.executable, "-c", _ASKS_IN_VAIN], cwd=root, capture_output=True, text=True, timeout=60)

    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == "{'TimeoutError'}\n"
