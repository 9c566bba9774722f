"""Transcripts of VoiceBase, by its REST API v3."""

import json
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from io import BytesIO
from urllib.parse import quote
from uuid import UUID

import aiohttp
import structlog
from yarl import URL

from server.background import parse_retry_after
from server.providers.http import NoAnswer, NotReached, exchange, open_session
from server.providers.ports import ProviderOutcomeUnknown, ProviderUnavailable
from server.providers.transcription.callback_url import CallbackUrls
from server.providers.transcription.voicebase_media import MediaMalformed, error_text, parse_media
from server.providers.transcription_ports import Submitted, Transcript, TranscriptionFailed

log = structlog.get_logger(__name__)

# Nothing of the request was taken.
_NOT_TAKEN = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})

# The token, the account or the address are wrong, which people put right.
_OPERATOR_STATUSES = frozenset(
    {HTTPStatus.UNAUTHORIZED, HTTPStatus.PAYMENT_REQUIRED, HTTPStatus.FORBIDDEN, HTTPStatus.METHOD_NOT_ALLOWED}
)

_FETCH_TIMEOUT = aiohttp.ClientTimeout(total=60)


class VoiceBaseTranscriber:
    """transcription_ports.Transcriber of one account; made inside a running event loop."""

    name = "voicebase"

    def __init__(
        self,
        *,
        token: str,
        urls: CallbackUrls,
        api_base_url: str,
        connections: int = 4,
        # A recording of two hours is 230 MB.
        timeout: timedelta = timedelta(minutes=10),
    ) -> None:
        self._headers = {"Authorization": f"Bearer {token}"}
        self._urls = urls
        self._media_url = f"{api_base_url}/v3/media"
        self._session = open_session(connections=connections, timeout=timeout)

    async def transcribe(
        self, audio: bytes, *, content_type: str, reference: UUID, callback_url: str
    ) -> Transcript | Submitted:
        """Upload the recording; what becomes of it is posted to `callback_url`, with a code that proves it."""
        callback = {
            "url": self._urls.url(callback_url, reference),
            "method": "POST",
            "type": "analytics",
            "include": ["transcript", "metadata"],
        }
        form = aiohttp.FormData()
        # As a file, which is sent in parts.
        form.add_field("media", BytesIO(audio), filename="recording.wav", content_type=content_type)
        form.add_field("configuration", json.dumps({"publish": {"callbacks": [callback]}}))
        form.add_field("metadata", json.dumps({"externalId": str(reference)}))
        try:
            with exchange():
                async with self._session.post(
                    self._media_url, data=form, headers=self._headers, allow_redirects=False
                ) as answer:
                    text = await answer.text()
        except NotReached as error:
            raise ProviderUnavailable(str(error)) from error
        except NoAnswer as error:
            raise ProviderOutcomeUnknown(str(error)) from error
        if not 200 <= answer.status < 300:
            failure = _failure(answer, text)
            if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR and answer.status not in _NOT_TAKEN:
                raise ProviderOutcomeUnknown(str(failure))
            raise failure
        try:
            return Submitted(parse_media(text).media_id)
        except MediaMalformed as error:
            raise ProviderOutcomeUnknown(f"status {answer.status}: {error}") from error

    async def fetch(self, media_id: str) -> Transcript | None:
        """The transcript; None while it is being made."""
        # Encoded already, and as it is sent.
        url = URL(f"{self._media_url}/{quote(media_id, safe='')}", encoded=True)
        try:
            with exchange():
                async with self._session.get(
                    url, headers=self._headers, allow_redirects=False, timeout=_FETCH_TIMEOUT
                ) as answer:
                    text = await answer.text()
        except (NotReached, NoAnswer) as error:
            raise ProviderUnavailable(str(error)) from error
        if answer.status == HTTPStatus.NOT_FOUND and error_text(text) is not None:
            raise TranscriptionFailed("VoiceBase has the recording no more")
        if not 200 <= answer.status < 300:
            failure = _failure(answer, text)
            if isinstance(failure, TranscriptionFailed):
                # The question was refused, which says nothing of the recording.
                raise ProviderUnavailable(f"status {answer.status}")
            raise failure
        try:
            media = parse_media(text)
        except MediaMalformed as error:
            raise ProviderUnavailable(f"status {answer.status}: {error}") from error
        if media.failure is not None:
            raise TranscriptionFailed(media.failure)
        return media.transcript

    async def aclose(self) -> None:
        """Close the pooled connections."""
        await self._session.close()


def _failure(answer: aiohttp.ClientResponse, text: str) -> ProviderUnavailable | TranscriptionFailed:
    """What an answer that is no success means.

    Only VoiceBase's own form of error says that a recording is refused for good: without it somebody in between
    answered, or the address is wrong.
    """
    wait = parse_retry_after(answer.headers.get("Retry-After"), now=datetime.now(UTC))
    if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR or answer.status in _NOT_TAKEN:
        return ProviderUnavailable(f"status {answer.status}", retry_after=wait)
    refusal = error_text(text)
    if answer.status in _OPERATOR_STATUSES or answer.status == HTTPStatus.NOT_FOUND or refusal is None:
        log.error("voicebase.refused_us", status=answer.status)
        return ProviderUnavailable(f"status {answer.status}", retry_after=wait)
    return TranscriptionFailed(refusal)
