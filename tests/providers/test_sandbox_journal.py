import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.providers.sandbox.journal import Journal
from server.providers.sandbox.settings import MESSAGING_SERVICE_SID
from server.stack.ports import free_port
from tests.providers.servers import ACCOUNT_SID, AUTH_TOKEN, PATIENCE, Receiver, Sandbox, running_sandbox

NEVER = timedelta(days=1)


async def test_restarted_carrier_still_has_what_it_took(tmp_path: Path) -> None:
    async with running_sandbox(data_dir=tmp_path, step_delay=NEVER) as sandbox:
        _, created = await sandbox.create(Body="ü", MediaUrl=["https://media.example/1.jpg"])
        asked = await sandbox.control("GET", "requests")

    async with running_sandbox(data_dir=tmp_path, step_delay=NEVER) as sandbox:
        _, fetched = await sandbox.rest("GET", created["uri"])
        assert fetched == created
        assert (await sandbox.control("GET", "requests"))["requests"][0] == asked["requests"][0]


async def test_restarted_carrier_takes_up_what_was_under_way(tmp_path: Path, receiver: Receiver) -> None:
    async with running_sandbox(data_dir=tmp_path, step_delay=NEVER) as sandbox:
        _, created = await sandbox.create(
            StatusCallback=f"{receiver.base_url}/cb", MessagingServiceSid=MESSAGING_SERVICE_SID
        )

    async with running_sandbox(data_dir=tmp_path):
        callbacks = [await receiver.next_callback() for _ in range(3)]

    assert [callback.report.provider_status for callback in callbacks] == ["queued", "sent", "delivered"]
    assert {callback.report.message_sid for callback in callbacks} == {created["sid"]}


async def test_callback_cut_off_by_a_restart_is_posted_again(tmp_path: Path, receiver: Receiver) -> None:
    held_back = {"Body": "[sandbox:callbacks=reordered]", "StatusCallback": f"{receiver.base_url}/cb"}
    async with running_sandbox(data_dir=tmp_path) as sandbox:
        await sandbox.create(**held_back)
        await receiver.next_statuses(2)
        await all_answered(sandbox)
    lines = (tmp_path / "journal").read_text().splitlines(keepends=True)
    before_the_last_answer = max(n for n, line in enumerate(lines) if '"callbacks_due":[]' in line)
    (tmp_path / "journal").write_text("".join(lines[:before_the_last_answer]))

    async with running_sandbox(data_dir=tmp_path):
        assert await receiver.next_statuses(1) == ["sent"]


async def test_delivered_message_is_not_reported_again(tmp_path: Path, receiver: Receiver) -> None:
    async with running_sandbox(data_dir=tmp_path) as sandbox:
        await sandbox.create(StatusCallback=f"{receiver.base_url}/cb")
        await receiver.next_statuses(2)
        await all_answered(sandbox)

    async with running_sandbox(data_dir=tmp_path) as sandbox:
        _, second = await sandbox.create(StatusCallback=f"{receiver.base_url}/cb")
        callback = await receiver.next_callback()

    assert callback.report.message_sid == second["sid"]


async def all_answered(sandbox: Sandbox) -> None:
    async with asyncio.timeout(PATIENCE):
        while any(taken["callbacks_due"] for taken in await sandbox.taken()):
            pass


async def test_restarted_carrier_knows_handsets_services_and_attempts(tmp_path: Path) -> None:
    async with running_sandbox(data_dir=tmp_path) as sandbox:
        await sandbox.control("PUT", "handsets/+14155550123", json={"opted_out": True})
        _, numbers = await sandbox.rest("GET", f"/v1/Services/{MESSAGING_SERVICE_SID}/PhoneNumbers")
        await sandbox.rest("DELETE", numbers["phone_numbers"][0]["url"].removeprefix(sandbox.base_url))
        assert (await sandbox.create(Body="[sandbox:503]", To="+14155550124"))[0] == 503

    async with running_sandbox(data_dir=tmp_path) as sandbox:
        assert (await sandbox.create())[1]["code"] == 21610
        _, numbers = await sandbox.rest("GET", f"/v1/Services/{MESSAGING_SERVICE_SID}/PhoneNumbers")
        assert len(numbers["phone_numbers"]) == 19
        assert (await sandbox.create(Body="[sandbox:503]", To="+14155550124"))[0] == 201


async def test_reset_and_deletion_survive_a_restart(tmp_path: Path) -> None:
    async with running_sandbox(data_dir=tmp_path) as sandbox:
        await sandbox.create()
        await sandbox.control("POST", "reset")
        assert (await sandbox.taken(), await sandbox.control("GET", "requests")) == ([], {"requests": []})

    async with running_sandbox(data_dir=tmp_path) as sandbox:
        assert await sandbox.taken() == []
        assert (await sandbox.create())[0] == 201


async def test_line_torn_by_a_kill_is_left_out(tmp_path: Path) -> None:
    async with running_sandbox(data_dir=tmp_path, step_delay=NEVER) as sandbox:
        _, created = await sandbox.create()
    with (tmp_path / "journal").open("a") as journal:
        journal.write('["messages","SM1",{"sid":')

    async with running_sandbox(data_dir=tmp_path, step_delay=NEVER) as sandbox:
        assert [taken["sid"] for taken in await sandbox.taken()] == [created["sid"]]


keys = st.sampled_from("abc")
changes = st.lists(st.tuples(keys, keys, st.none() | st.integers() | st.text() | st.dictionaries(keys, st.booleans())))


@given(changes=changes)
def test_replay_is_the_last_word_on_each_key(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[str, str, object]]
) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal"
    written = Journal(path)
    written.open()
    expected: dict[tuple[str, str], object] = {}
    for table, key, value in changes:
        written.put(table, key, value)
        expected[table, key] = value
    written.close()

    once, twice = Journal(path), Journal(path)
    first = once.open()
    once.close()
    second = twice.open()
    twice.close()

    replayed = {(table, key): value for table, values in first.items() for key, value in values.items()}
    assert replayed == {where: value for where, value in expected.items() if value is not None}
    assert {table: values for table, values in first.items() if values} == second


@asynccontextmanager
async def sandbox_process(data_dir: Path, port: int) -> AsyncIterator[asyncio.subprocess.Process]:
    program = (
        "import sys; from pathlib import Path; from server.providers.sandbox.app import run;"
        " from server.providers.sandbox.settings import SandboxSettings;"
        " run(SandboxSettings(sys.argv[1], sys.argv[2], data_dir=Path(sys.argv[3])), host='127.0.0.1',"
        " port=int(sys.argv[4]))"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", program, ACCOUNT_SID, AUTH_TOKEN, str(data_dir), str(port)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), PATIENCE)
        assert b"sandbox.ready" in line, line + await process.stdout.read()
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_killed_process_forgets_nothing_and_a_terminated_one_ends_well(tmp_path: Path) -> None:
    port = free_port()
    async with aiohttp.ClientSession() as http:
        sandbox = Sandbox(f"http://127.0.0.1:{port}", http)
        async with sandbox_process(tmp_path, port) as killed:
            _, created = await sandbox.create()
            killed.kill()
            await killed.wait()
        async with sandbox_process(tmp_path, port) as terminated:
            assert [taken["sid"] for taken in await sandbox.taken()] == [created["sid"]]
            terminated.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(terminated.wait(), PATIENCE) == 0

    tables = [json.loads(line)[0] for line in (tmp_path / "journal").read_text().splitlines()]
    assert "messages" in tables
