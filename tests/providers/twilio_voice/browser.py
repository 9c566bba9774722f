"""The API key and the TwiML App that browsers call with, and what signs their tokens."""

from server.providers.twilio.voice_tokens import TwilioVoiceTokens
from tests.providers.servers import ACCOUNT_SID

API_KEY_SID = "SK" + "2" * 32
API_KEY_SECRET = "a-secret-of-an-api-key-of-32-signs"
TWIML_APP_SID = "AP" + "3" * 32

TOKENS = TwilioVoiceTokens(
    account_sid=ACCOUNT_SID, api_key_sid=API_KEY_SID, api_key_secret=API_KEY_SECRET, twiml_app_sid=TWIML_APP_SID
)
