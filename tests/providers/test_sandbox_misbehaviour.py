from datetime import timedelta
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.providers.sandbox.misbehaviour import (
    Answer,
    Callbacks,
    Misbehaviour,
    TriggerUnknown,
    asked_in,
    has_trigger,
)
from tests.providers.servers import MESSAGES, Receiver, Sandbox

ANSWERS = st.sampled_from(list(Answer))


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("an error, plainly said", Misbehaviour()),
        ("[sandbox:429]", Misbehaviour(answer=Answer.TOO_MANY_REQUESTS)),
        ("Hi [SANDBOX:503x3]", Misbehaviour(answer=Answer.UNAVAILABLE)),
        ("Hi [sandbox:503X3] there", Misbehaviour(answer=Answer.UNAVAILABLE)),
        ("[sandbox:delay=2s]", Misbehaviour(delay=timedelta(seconds=2))),
        ("[sandbox:delay=150ms]", Misbehaviour(delay=timedelta(milliseconds=150))),
        ("[sandbox: callbacks=reordered ]", Misbehaviour(callbacks=Callbacks.REORDERED)),
        ("[sandbox:undelivered=30003]", Misbehaviour(delivery_failure=("undelivered", 30003))),
        (
            "[sandbox:429x2][sandbox:retry-after=0s][sandbox:callbacks=missing]",
            Misbehaviour(answer=Answer.TOO_MANY_REQUESTS, retry_after=timedelta(0), callbacks=Callbacks.MISSING),
        ),
    ],
)
def test_triggers_ask_for_what_they_say(text: str, asked: Misbehaviour) -> None:
    assert asked_in(text, attempt=1) == asked


@pytest.mark.parametrize(
    "trigger",
    ["", "418", "429x", "429=1", "delay", "delay=2", "delay=61s", "delay=1sx2", "callbacks=late", "failed=x", "a b"],
)
def test_trigger_that_means_nothing_is_named(trigger: str) -> None:
    with pytest.raises(TriggerUnknown) as unknown:
        asked_in(f"[sandbox:{trigger}] [sandbox:429]", attempt=1)

    assert str(unknown.value) == f"[sandbox:{trigger}]"


@given(script=st.lists(st.tuples(ANSWERS, st.integers(1, 3)), max_size=4), attempt=st.integers(1, 20))
def test_answers_follow_each_other_and_then_it_behaves(script: list[tuple[Answer, int]], attempt: int) -> None:
    text = " ".join(f"[sandbox:{answer}x{count}]" for answer, count in script)
    unrolled = [answer for answer, count in script for _ in range(count)]

    asked = asked_in(text, attempt=attempt)

    assert asked.answer == (unrolled[attempt - 1] if attempt <= len(unrolled) else None)


@given(answer=ANSWERS, attempt=st.integers(1, 1000))
def test_star_is_for_all_attempts(answer: Answer, attempt: int) -> None:
    assert asked_in(f"[sandbox:{answer}x*]", attempt=attempt).answer is answer


@given(st.text())
def test_ordinary_text_asks_for_nothing(text: str) -> None:
    if not has_trigger(text):
        assert asked_in(text, attempt=1) == Misbehaviour()


async def test_text_is_refused_so_often_and_then_taken(sandbox: Sandbox) -> None:
    asked = {"Body": "[sandbox:429x2][sandbox:503][sandbox:retry-after=3s] hello"}

    answers = [(await sandbox.create(**asked))[0] for _ in range(5)]

    assert answers == [429, 429, 503, 201, 201]
    assert len(await sandbox.taken()) == 2


async def test_attempts_are_counted_for_each_message(sandbox: Sandbox) -> None:
    asked = [{"Body": "[sandbox:500] hello", "StatusCallback": f"http://127.0.0.1:1/?message_uuid={n}"} for n in (1, 2)]

    answers = [(await sandbox.create(**form))[0] for form in [*asked, *asked]]

    assert answers == [500, 500, 201, 201]


@pytest.mark.parametrize(
    ("answer", "status", "retry_after"),
    [("429", 429, "2"), ("503", 503, "2"), ("500", 500, "2"), ("502", 502, None), ("504", 504, None)],
)
async def test_refusing_answers_take_nothing(
    sandbox: Sandbox, answer: str, status: int, retry_after: str | None
) -> None:
    await sandbox.misbehave(answer=answer, retry_after_ms=1500)

    async with sandbox.http.post(sandbox.base_url + MESSAGES, headers=AUTHORIZED, data=VALID) as response:
        assert response.status == status
        assert response.headers.get("Retry-After") == retry_after

    assert await sandbox.taken() == []


async def test_too_many_requests_always_says_when_to_come_back(sandbox: Sandbox) -> None:
    await sandbox.misbehave(answer="429")

    async with sandbox.http.post(sandbox.base_url + MESSAGES, headers=AUTHORIZED, data=VALID) as response:
        assert response.headers["Retry-After"] == "1"


@pytest.mark.parametrize(
    ("answer", "status"), [("500-taken", 500), ("502-taken", 502), ("504-taken", 504), ("garbled", 201)]
)
async def test_untrue_answers_hide_a_taken_message(sandbox: Sandbox, answer: str, status: int) -> None:
    form = VALID | {"Body": f"[sandbox:{answer}]"}

    async with sandbox.http.post(sandbox.base_url + MESSAGES, headers=AUTHORIZED, data=form) as response:
        assert response.status == status

    assert len(await sandbox.taken()) == 1


async def test_lost_response_takes_the_message_and_says_nothing(sandbox: Sandbox) -> None:
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await sandbox.create(Body="[sandbox:lost-response]")

    (taken,) = await sandbox.taken()
    assert taken["body"] == "[sandbox:lost-response]"
    (asked,) = (await sandbox.control("GET", "requests"))["requests"]
    assert asked["status"] is None


async def test_invalid_message_is_refused_even_when_its_answer_would_be_lost(sandbox: Sandbox) -> None:
    status, body = await sandbox.create(Body="[sandbox:lost-response]", From="+13035550100")

    assert (status, body["code"]) == (400, 21606)


async def test_late_answer_is_late_and_true(sandbox: Sandbox, receiver: Receiver) -> None:
    impatient = aiohttp.ClientTimeout(sock_read=0.05)
    form = VALID | {"Body": "[sandbox:delay=100ms]", "StatusCallback": f"{receiver.base_url}/cb"}
    with pytest.raises(TimeoutError):
        await sandbox.http.post(sandbox.base_url + MESSAGES, headers=AUTHORIZED, data=form, timeout=impatient)

    callback = await receiver.next_callback()

    assert [taken["sid"] for taken in await sandbox.taken()] == [callback.report.message_sid]


async def test_misbehaviour_ends_after_so_many_requests(sandbox: Sandbox) -> None:
    await sandbox.misbehave(answer="503", next_requests=2)

    answers = [(await sandbox.create())[0] for _ in range(3)]

    assert answers == [503, 503, 201]
    assert (await sandbox.control("GET", "misbehaviour"))["answer"] is None


async def test_misbehaviour_lasts_until_it_is_taken_back(sandbox: Sandbox) -> None:
    await sandbox.misbehave(answer="500")
    assert [(await sandbox.create())[0] for _ in range(3)] == [500] * 3

    await sandbox.control("DELETE", "misbehaviour")
    assert (await sandbox.create())[0] == 201


async def test_misbehaviour_for_all_goes_before_a_trigger(sandbox: Sandbox) -> None:
    await sandbox.misbehave(answer="503", next_requests=1)

    answers = [(await sandbox.create(Body="[sandbox:500x2]"))[0] for _ in range(3)]

    assert answers == [503, 500, 201]


AUTHORIZED = {"Authorization": aiohttp.encode_basic_auth("AC" + "1" * 32, "the-auth-token")}
VALID: dict[str, Any] = {"To": "+14155550123", "From": "+12065550100", "Body": "hello"}
