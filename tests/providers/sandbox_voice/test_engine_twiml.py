import pytest

from server.providers.sandbox.voice_phones import Phone
from server.providers.sandbox.voice_records import Webhook
from tests.providers.sandbox_voice.engine import OUR_NUMBER, PHONE, SANDBOX_URL, Engine, in_order
from tests.providers.servers import closed_port_url


async def test_a_call_that_comes_in_rings_until_a_verb_answers_it(engine: Engine) -> None:
    voice = engine.answers("/voice", "<Pause length='4'/><Say>Hello</Say><Redirect>/after</Redirect>")

    call = engine.come_in(voice, status_callback=engine.told("/progress"))

    asked = (await engine.get("/voice"))[0]
    assert (asked["CallStatus"], asked["Direction"]) == ("ringing", "inbound")
    assert (asked["From"], asked["To"], asked["FromCountry"]) == (PHONE, OUR_NUMBER, "US")
    assert (await engine.get("/after"))[0]["CallStatus"] == "in-progress"
    await engine.until(call)
    told = in_order(await engine.get("/progress", 3))
    assert [each["CallStatus"] for each in told] == ["ringing", "in-progress", "completed"]


async def test_an_empty_answer_ends_a_call(engine: Engine) -> None:
    call = engine.come_in(engine.answers("/voice", ""))

    await engine.until(call)

    assert call.started is not None
    assert call.duration is not None
    assert call.duration >= 1


@pytest.mark.parametrize(("reason", "status"), [("busy", "busy"), ("rejected", "no-answer")])
async def test_a_rejected_call_is_never_answered(engine: Engine, reason: str, status: str) -> None:
    call = engine.come_in(engine.answers("/voice", f"<Reject reason='{reason}'/>"))

    await engine.until(call, status)

    assert (call.started, call.duration) == (None, 0)


async def test_what_follows_a_hangup_is_not_done(engine: Engine) -> None:
    call = engine.come_in(engine.answers("/voice", "<Hangup/><Redirect>/after</Redirect>"))

    await engine.until(call)

    await engine.settled()
    assert engine.got("/after") == []


async def test_saying_playing_and_pausing_take_their_time(engine: Engine) -> None:
    call = engine.come_in(
        engine.answers(
            "/voice", "<Say loop='2'>one two three four five</Say><Play>http://a.test/a.mp3</Play><Pause length='10'/>"
        )
    )

    await engine.until(call)

    assert call.duration is not None
    assert call.duration >= 4 + 2 + 10


async def test_what_is_said_without_end_ends_with_the_call(engine: Engine) -> None:
    call = engine.come_in(engine.answers("/voice", "<Say loop='0'>Hello</Say><Redirect>/after</Redirect>"))
    await engine.until_it_does(call, "say")
    await engine.settled()

    engine.exchange.hang_up(call.sid)

    await engine.settled()
    assert engine.got("/after") == []


async def test_urls_are_relative_to_the_document_and_may_be_asked_with_get(engine: Engine) -> None:
    voice = engine.answers("/folder/voice", "<Redirect method='GET'>next?a=1</Redirect>")
    engine.answers("/folder/next", "<Redirect>../last</Redirect>")

    engine.come_in(voice)

    await engine.get("/last")
    asked = {each.path: each for each in engine.asked}
    assert (asked["/folder/next"].method, asked["/folder/next"].fields["a"]) == ("GET", "1")
    assert asked["/folder/next"].fields["CallStatus"] == "in-progress"
    assert asked["/last"].method == "POST"


async def test_a_browser_says_to_whom_it_wants(engine: Engine) -> None:
    call = engine.exchange.client_connects(
        identity="staff",
        application_sid="AP1",
        document=engine.answers("/app", "<Redirect>/after</Redirect>"),
        parameters={"To": "+14155550199", "token": "abc", "CallSid": "forged"},
        base_url=SANDBOX_URL,
    )

    asked = (await engine.get("/app"))[0]
    assert (asked["From"], asked["Caller"], asked["To"]) == ("client:staff", "client:staff", "+14155550199")
    assert (asked["ApplicationSid"], asked["token"], asked["CallSid"]) == ("AP1", "abc", call.sid)
    assert (asked["Direction"], asked["CallStatus"]) == ("inbound", "ringing")
    assert "FromCountry" not in asked
    assert "token" not in (await engine.get("/after"))[0]


async def test_a_menu_is_told_the_digits(engine: Engine) -> None:
    menu = "<Gather numDigits='1' action='/choice'><Say>Press one</Say><Pause length='30'/></Gather>"
    voice = engine.answers("/voice", menu + "<Redirect>/silence</Redirect>")

    engine.come_in(voice, phone=Phone(presses=("1",)))

    chosen = (await engine.get("/choice"))[0]
    assert (chosen["Digits"], chosen["FinishedOnKey"]) == ("1", "")
    assert engine.got("/silence") == []


async def test_a_phone_presses_at_each_menu_what_it_presses_next(engine: Engine) -> None:
    voice = engine.answers("/voice", "<Gather numDigits='2' timeout='2'/><Redirect>/voice</Redirect>", "<Hangup/>")
    engine.pages["/voice"].insert(0, engine.pages["/voice"][0])

    call = engine.come_in(voice, phone=Phone(presses=("12", "", "3")))

    await engine.until(call)
    assert [each.get("Digits") for each in engine.got("/voice")] == [None, "12", None]


async def test_digits_end_with_a_key_a_number_or_a_silence(engine: Engine) -> None:
    voice = engine.answers("/voice", "<Gather action='/one'/>")
    engine.answers("/one", "<Gather numDigits='3' action='/two'/>")
    engine.answers("/two", "<Gather finishOnKey='*' timeout='3' action='/three'/>")
    engine.answers("/three", "<Hangup/>")

    engine.come_in(voice, phone=Phone(presses=("12#", "345", "67#8")))

    await engine.get("/three")
    assert [engine.got(path)[0]["Digits"] for path in ("/one", "/two", "/three")] == ["12", "345", "67#8"]
    assert [engine.got(path)[0]["FinishedOnKey"] for path in ("/one", "/two", "/three")] == ["#", "", ""]


async def test_silence_goes_on_with_the_next_verb_or_where_it_is_wanted_with_the_action(engine: Engine) -> None:
    engine.come_in(engine.answers("/voice", "<Gather action='/a' timeout='2'/><Redirect>/next</Redirect>"))
    await engine.get("/next")
    assert engine.got("/a") == []

    engine.come_in(engine.answers("/empty", "<Gather action='/b' timeout='2' actionOnEmptyResult='true'/>"))
    assert (await engine.get("/b"))[0]["Digits"] == ""


async def test_keys_pressed_by_hand_are_kept_until_something_listens(engine: Engine) -> None:
    call = engine.come_in(engine.answers("/voice", "<Say>Welcome</Say><Gather numDigits='1' action='/choice'/>"))
    await engine.until(call, "in-progress")

    engine.exchange.press(call.sid, "7")

    assert (await engine.get("/choice"))[0]["Digits"] == "7"


async def test_keys_pressed_while_a_menu_listens_are_heard(engine: Engine) -> None:
    call = engine.come_in(engine.answers("/voice", "<Gather numDigits='2' timeout='500' action='/choice'/>"))
    await engine.until_it_does(call, "gather")

    engine.exchange.press(call.sid, "4")
    engine.exchange.press(call.sid, "2")

    assert (await engine.get("/choice"))[0]["Digits"] == "42"


@pytest.mark.parametrize(
    ("page", "code"),
    [
        (500, 11200),
        (404, 11200),
        (("application/json", "{}"), 12300),
        (("text/xml", "<Response><Say>"), 12100),
        ("<Sing/>", 12200),
        ("<Gather input='speech'/>", 12200),
        ("<Dial><Number sendDigits='1'>+14155550199</Number></Dial>", 12200),
        ("<Redirect>ftp://a.test/</Redirect>", 11100),
    ],
)
async def test_an_answer_that_cannot_be_followed_ends_the_call_and_is_a_problem(
    engine: Engine, page: str | int | tuple[str, str], code: int
) -> None:
    voice = engine.answers("/voice", page)

    call = engine.come_in(voice)

    await engine.until(call)
    problem = engine.exchange.problems()[0]
    assert (problem.code, problem.call_sid, problem.url) == (code, call.sid, voice.url)


async def test_an_account_that_does_not_answer_is_a_problem(engine: Engine) -> None:
    call = engine.come_in(Webhook(f"{closed_port_url()}/voice"))

    await engine.until(call)

    assert [each.code for each in engine.exchange.problems()] == [11205]


async def test_a_status_callback_that_is_refused_is_a_problem_but_ends_nothing(engine: Engine) -> None:
    engine.pages["/progress"] = [500]

    call = engine.call(engine.answers("/voice", "<Hangup/>"), status_callback=engine.told("/progress", "answered"))

    await engine.until(call)
    await engine.eventually(engine.exchange.problems)
    await engine.settled()
    assert [each.code for each in engine.exchange.problems()] == [11200]


async def test_a_document_in_the_request_has_no_url_for_relative_ones(engine: Engine) -> None:
    absolute = engine.url("/after").url
    await engine.until(engine.call(f"<Response><Redirect>{absolute}</Redirect></Response>"))
    assert len(engine.got("/after")) == 1

    await engine.until(engine.call("<Response><Redirect>/after</Redirect></Response>"))
    assert [each.code for each in engine.exchange.problems()] == [11100]
