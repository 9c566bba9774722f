"""The words by which a contact stops messages and lets them come again, as carriers read them: pure."""

from server.providers.ports import Keyword

# What Twilio blocks on ("Advanced Opt-Out"), and OPT_OUT, which is our own.
_STOP = ("STOP", "STOPALL", "UNSUBSCRIBE", "END", "QUIT", "CANCEL", "REVOKE", "OPTOUT", "OPT_OUT")
_START = ("START", "YES", "UNSTOP")
_HELP = ("HELP", "INFO")

_MEANING = {
    **dict.fromkeys(_STOP, Keyword.STOP),
    **dict.fromkeys(_START, Keyword.START),
    **dict.fromkeys(_HELP, Keyword.HELP),
}


def keyword_of(text: str) -> Keyword | None:
    """What a text asks: the word must be all of it, in any case. None of an ordinary text."""
    return _MEANING.get(text.strip().upper())
