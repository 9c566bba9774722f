import pytest
from hypothesis import given
from hypothesis import strategies as st
from twilio.twiml.messaging_response import Body, Media, Message, MessagingResponse

from server.providers.sandbox.twiml import MAX_BYTES, Reply, TwimlInvalid, replies


def of_the_sdk(*messages: Message) -> bytes:
    response = MessagingResponse()
    for message in messages:
        response.append(message)
    return str(response).encode()


def with_nouns(body: str, *urls: str) -> Message:
    message = Message()
    message.append(Body(body))
    for url in urls:
        message.append(Media(url))
    return message


def test_what_the_sdk_writes_is_read() -> None:
    written = of_the_sdk(
        Message("Thank you & bye"), with_nouns("See", "https://a.example/1.png", "https://a.example/2")
    )

    assert replies("text/xml", written) == [
        Reply("Thank you & bye", ()),
        Reply("See", ("https://a.example/1.png", "https://a.example/2")),
    ]


# Line ends are XML's to change, and what is around a text is not part of it.
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Z"]))))
def test_any_texts_are_read_in_order(bodies: list[str]) -> None:
    written = of_the_sdk(*(Message(body) for body in bodies))

    assert [reply.body for reply in replies("application/xml", written)] == bodies


@pytest.mark.parametrize(
    ("content_type", "body", "expected"),
    [
        ("text/xml", b"", []),
        ("application/octet-stream", b" \n", []),
        ("text/html", b"<Response></Response>", []),
        ("text/plain", "Grüße\n".encode(), [Reply("Grüße", ())]),
        ("text/xml", b"<Response><Sms>a</Sms><!-- b --></Response>", [Reply("a", ())]),
        ("text/xml", b"<Response><Message> a <Body>b</Body> c </Message></Response>", [Reply("a b c", ())]),
        ("text/xml", "<?xml version='1.0' encoding='latin-1'?><Response/>".encode("latin-1"), []),
    ],
)
def test_answer_asks_for_messages(content_type: str, body: bytes, expected: list[Reply]) -> None:
    assert replies(content_type, body) == expected


@pytest.mark.parametrize(
    ("content_type", "body", "code"),
    [
        ("application/json", b"{}", 12300),
        ("text/xml", b"thanks", 12100),
        ("text/xml", b"<Response><Message></Response>", 12100),
        ("text/xml", b"\xff\xfe", 12100),
        ("text/xml", b"<Answer/>", 12200),
        ("text/xml", b"<Response><Say>hello</Say></Response>", 12200),
        ("text/xml", b"<Response><Redirect>/other</Redirect></Response>", 12200),
        ("text/xml", b"<Response><Message to='+14155550199'>a</Message></Response>", 12200),
        ("text/xml", b"<Response><Message><b>a</b></Message></Response>", 12200),
        ("text/xml", b"<Response>" + b" " * MAX_BYTES + b"</Response>", 11750),
        (
            "text/xml",
            b"<!DOCTYPE r [<!ENTITY a 'aaaaaaaaaa'>"
            + b"".join(b"<!ENTITY a%d '%s'>" % (n, b"&a%d;" % (n - 1) * 10) for n in range(1, 9)).replace(
                b"&a0;", b"&a;"
            )
            + b"]><Response>&a8;</Response>",
            12100,
        ),
    ],
)
def test_answer_that_means_nothing_has_the_vendors_code(content_type: str, body: bytes, code: int) -> None:
    with pytest.raises(TwimlInvalid) as refused:
        replies(content_type, body)

    assert refused.value.code == code
