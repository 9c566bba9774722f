"""Proves and reads VoiceBase's analytics callbacks."""

from server.providers.ports import CallbackMalformed, SignedRequest
from server.providers.transcription.callback_url import CallbackUrls
from server.providers.transcription.voicebase_media import MediaMalformed, parse_media
from server.providers.transcription_ports import TranscriptReport


class VoiceBaseReportReader:
    """transcription_ports.TranscriptReportReader of the callbacks that VoiceBaseTranscriber asks for."""

    def __init__(self, urls: CallbackUrls) -> None:
        self._urls = urls

    def read(self, request: SignedRequest) -> TranscriptReport:
        """The transcript, or why there is none. Raises SignatureInvalid or CallbackMalformed."""
        reference = self._urls.reference(request.url)
        try:
            media = parse_media(request.body)
        except MediaMalformed as error:
            raise CallbackMalformed(str(error)) from error
        if media.transcript is None and media.failure is None:
            raise CallbackMalformed("status must be finished or failed")
        return TranscriptReport(reference, media.media_id, media.transcript, media.failure)
