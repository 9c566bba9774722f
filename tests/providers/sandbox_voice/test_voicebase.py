"""The sandbox's VoiceBase over a socket: what is uploaded, what it becomes, and how that is told."""

import json
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from server.providers.sandbox.voice_audio import Spoken, recording_wav
from tests.providers.sandbox_voice.account import NUMBER, PHONE, Account
from tests.providers.servers import ACCOUNT_SID, AUTH_TOKEN, Receiver, Sandbox, running_sandbox

TOKEN = "voicebase-token"
WAV = recording_wav([Spoken(0.5, "Hello, we will be late.")], seconds=5)


async def asked(sandbox: Sandbox, method: str, path: str, *, token: str = TOKEN, **request: Any) -> tuple[int, Any]:
    """One request of VoiceBase's protocol, status and JSON."""
    headers = {"Authorization": f"Bearer {token}"}
    async with sandbox.http.request(method, f"{sandbox.base_url}/v3/{path}", headers=headers, **request) as response:
        return response.status, await response.json() if response.status != 204 else None


async def uploaded(
    sandbox: Sandbox, *, media: bytes = WAV, callbacks: list[Any] | None = None, configuration: Any = None, **form: str
) -> tuple[int, Any]:
    """A recording, to be told of at these callbacks."""
    data = aiohttp.FormData(form)
    data.add_field("media", media, filename="recording.wav", content_type="audio/x-wav")
    told = configuration or {"publish": {"callbacks": callbacks or []}}
    data.add_field("configuration", json.dumps(told), content_type="application/json")
    return await asked(sandbox, "POST", "media", data=data)


def callback(receiver: Receiver, **fields: Any) -> dict[str, Any]:
    return {"url": f"{receiver.base_url}/transcribed", **fields}


def spoken(words: list[dict[str, Any]]) -> list[str]:
    return [word["w"] for word in words]


async def test_uploaded_recording_is_told_of_with_the_words_in_it(sandbox: Sandbox, receiver: Receiver) -> None:
    status, accepted = await uploaded(sandbox, callbacks=[callback(receiver)], metadata='{"externalId": "7"}')

    told = await receiver.next()
    analytics = json.loads(told.body)
    words = analytics["transcript"]["words"]
    assert (status, accepted["status"], accepted["length"]) == (200, "accepted", 5000)
    assert told.headers["Content-Type"] == "application/json"
    assert (analytics["mediaId"], analytics["status"]) == (accepted["mediaId"], "finished")
    assert analytics["metadata"] == {"externalId": "7"}
    assert spoken(words) == ["Hello", ",", "we", "will", "be", "late", "."]
    assert [word["p"] for word in words] == list(range(7))
    assert [word.get("m") for word in words] == [None, "punc", None, None, None, None, "punc"]
    assert words[0]["s"] == 500
    assert all(word["s"] <= word["e"] <= after["s"] for word, after in pairwise(words))


async def test_recording_is_fetched_until_it_is_finished(sandbox: Sandbox, receiver: Receiver) -> None:
    _, accepted = await uploaded(sandbox, callbacks=[callback(receiver)])
    media = f"media/{accepted['mediaId']}"
    await receiver.next()

    fetched, progress, transcript, listed = [
        (await asked(sandbox, "GET", path))[1] for path in (media, f"{media}/progress", f"{media}/transcript", "media")
    ]

    assert (fetched["status"], progress["progress"]["status"]) == ("finished", "finished")
    assert fetched["transcript"]["words"] == transcript["words"]
    assert spoken(transcript["words"])[:1] == ["Hello"]
    assert [each["mediaId"] for each in listed["media"]] == [accepted["mediaId"]]


async def test_words_of_two_channels_are_told_apart(sandbox: Sandbox, receiver: Receiver) -> None:
    wav = recording_wav([Spoken(0, "Hello", channel=0), Spoken(1, "Hi", channel=1)], seconds=3, channels=2)
    configuration = {
        "ingest": {"channels": [{"speaker": "school"}, {"speaker": "parent"}]},
        "publish": {"callbacks": [callback(receiver)]},
    }

    await uploaded(sandbox, media=wav, configuration=configuration)

    words = json.loads((await receiver.next()).body)["transcript"]["words"]
    assert [(word["w"], word.get("m")) for word in words] == [
        ("school", "turn"),
        ("Hello", None),
        ("parent", "turn"),
        ("Hi", None),
    ]


async def test_recording_of_a_call_has_the_words_that_were_spoken_in_it(
    sandbox: Sandbox, account: Account, receiver: Receiver
) -> None:
    await sandbox.control("PUT", f"phones/{PHONE}", json={"says": ["We will be late"]})
    record = f'<Record action="/done" recordingStatusCallback="{account.url("/recorded")}"/>'
    account.url("/voice", record)
    await sandbox.control("POST", "calls", json={"from": PHONE, "to": NUMBER})
    (recorded,) = await account.get("/recorded")
    headers = {"Authorization": aiohttp.encode_basic_auth(ACCOUNT_SID, AUTH_TOKEN)}
    async with sandbox.http.get(recorded["RecordingUrl"], headers=headers) as response:
        wav = await response.read()

    await uploaded(sandbox, media=wav, callbacks=[callback(receiver)])

    words = json.loads((await receiver.next()).body)["transcript"]["words"]
    assert spoken(words) == ["We", "will", "be", "late"]


async def test_only_what_is_asked_for_is_told(sandbox: Sandbox, receiver: Receiver) -> None:
    await uploaded(sandbox, callbacks=[callback(receiver, method="PUT", include=["metadata"])], metadata='{"a": 1}')

    analytics = json.loads((await receiver.next()).body)

    assert analytics["metadata"] == {"a": 1}
    assert "transcript" not in analytics


async def test_recording_that_cannot_be_decoded_fails(sandbox: Sandbox, receiver: Receiver) -> None:
    status, _ = await uploaded(sandbox, media=b"no sound", callbacks=[callback(receiver)])

    analytics = json.loads((await receiver.next()).body)
    assert (status, analytics["status"]) == (200, "failed")
    assert "decoded" in analytics["errors"][0]["error"]
    assert "transcript" not in analytics


async def test_recordings_fail_as_they_are_told_to(sandbox: Sandbox, receiver: Receiver) -> None:
    await sandbox.control("PUT", "voicebase", json={"failure": "The audio is too quiet.", "delay_ms": 1000})

    _, accepted = await uploaded(sandbox, callbacks=[callback(receiver)])

    analytics = json.loads((await receiver.next()).body)
    assert (analytics["status"], analytics["errors"]) == ("failed", [{"error": "The audio is too quiet."}])
    status, _ = await asked(sandbox, "GET", f"media/{accepted['mediaId']}/transcript")
    assert status == 404


async def test_callbacks_are_duplicated_and_lost_as_they_are_told_to(sandbox: Sandbox, receiver: Receiver) -> None:
    await sandbox.control("PUT", "voicebase", json={"callbacks": "missing"})
    _, lost = await uploaded(sandbox, callbacks=[callback(receiver)])
    await sandbox.control("PUT", "voicebase", json={"callbacks": "duplicated"})
    _, doubled = await uploaded(sandbox, callbacks=[callback(receiver)])

    told = [json.loads((await receiver.next()).body)["mediaId"] for _ in range(2)]

    assert told == [doubled["mediaId"]] * 2
    assert lost["mediaId"] not in told


async def test_callback_that_is_not_taken_is_tried_again_at_once_and_later(
    account: Account, receiver: Receiver
) -> None:
    receiver.statuses = [500] * 4
    async with running_sandbox(voicebase_token=TOKEN, second=timedelta(microseconds=10)) as sandbox:
        await uploaded(sandbox, callbacks=[callback(receiver)])

        bodies = [(await receiver.next()).body for _ in range(5)]

    assert len({*bodies}) == 1


async def test_deleted_recording_is_gone_and_untold(sandbox: Sandbox, receiver: Receiver) -> None:
    await sandbox.control("PUT", "voicebase", json={"delay_ms": 86_400_000})
    _, accepted = await uploaded(sandbox, callbacks=[callback(receiver)])

    status, _ = await asked(sandbox, "DELETE", f"media/{accepted['mediaId']}")

    assert status == 204
    assert (await asked(sandbox, "GET", f"media/{accepted['mediaId']}"))[0] == 404
    assert (await sandbox.control("GET", "voicebase"))["media"] == []


async def test_restart_takes_recordings_up_where_they_were(receiver: Receiver, tmp_path: Path) -> None:
    slow, fast = timedelta(seconds=60), timedelta(milliseconds=1)
    async with running_sandbox(data_dir=tmp_path, voicebase_token=TOKEN, second=slow) as sandbox:
        _, accepted = await uploaded(sandbox, callbacks=[callback(receiver)])

    async with running_sandbox(data_dir=tmp_path, voicebase_token=TOKEN, second=fast):
        analytics = json.loads((await receiver.next()).body)

    assert (analytics["mediaId"], analytics["status"]) == (accepted["mediaId"], "finished")


@pytest.mark.parametrize("token", ["", "another"])
async def test_another_token_is_refused(sandbox: Sandbox, token: str) -> None:
    status, answer = await asked(sandbox, "GET", "media", token=token)

    assert (status, answer["status"]) == (401, 401)


@pytest.mark.parametrize(
    "configuration",
    [
        {"publish": {"callbacks": [{"url": "no url"}]}},
        {"publish": {"callbacks": ["http://127.0.0.1:1/"]}},
        {"publish": {"callbacks": [{"url": "http://127.0.0.1:1/", "method": "GET"}]}},
        {"publish": {"callbacks": [{"url": "http://127.0.0.1:1/", "type": "transcript", "format": "srt"}]}},
        {"publish": {"callbacks": [{"url": "http://127.0.0.1:1/", "include": "transcript"}]}},
        ["publish"],
    ],
)
async def test_configuration_that_means_nothing_is_refused(sandbox: Sandbox, configuration: Any) -> None:
    status, _ = await uploaded(sandbox, configuration=configuration)

    assert status == 400


async def test_upload_without_media_is_refused(sandbox: Sandbox) -> None:
    data = aiohttp.FormData({"configuration": "{}"})
    data.add_field("note", b"x", filename="note.txt")

    assert (await asked(sandbox, "POST", "media", data=data))[0] == 400


@pytest.mark.parametrize(("answer", "status", "taken"), [("429", 429, 0), ("503", 503, 0), ("500-taken", 500, 1)])
async def test_answers_are_untrue_as_everybodys_are(sandbox: Sandbox, answer: str, status: int, taken: int) -> None:
    await sandbox.misbehave(answer=answer, next_requests=1)

    given = await uploaded(sandbox)

    assert given[0] == status
    assert len((await sandbox.control("GET", "voicebase"))["media"]) == taken


async def test_upload_whose_answer_is_lost_was_taken(sandbox: Sandbox) -> None:
    await sandbox.misbehave(answer="lost-response", next_requests=1)

    with pytest.raises(aiohttp.ClientError):
        await uploaded(sandbox)

    assert len((await sandbox.control("GET", "voicebase"))["media"]) == 1


async def test_reset_forgets_recordings_and_manners(sandbox: Sandbox) -> None:
    await sandbox.control("PUT", "voicebase", json={"failure": "No."})
    await uploaded(sandbox)

    await sandbox.control("POST", "reset")

    shown = await sandbox.control("GET", "voicebase")
    assert shown == {"media": [], "manner": {"failure": None, "delay_ms": 0, "callbacks": "in-order"}}


async def test_manner_that_means_nothing_is_refused(sandbox: Sandbox) -> None:
    answer = await sandbox.control(
        "PUT", "voicebase", json={"failure": "", "delay_ms": -1, "callbacks": "reordered", "mood": 1}, expect=400
    )

    assert {error["field"] for error in answer["errors"]} == {"failure", "delay_ms", "callbacks", "mood"}


async def test_sandbox_without_a_token_plays_no_voicebase() -> None:
    async with running_sandbox() as sandbox:
        answer = await sandbox.control("GET", "voicebase", expect=400)

    assert "plays no VoiceBase" in answer["message"]
