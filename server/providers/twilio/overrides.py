"""What callback URLs tell Twilio in their fragment, which it keeps to itself ("Webhooks connection overrides")."""

from typing import Final

# Twilio's own retries, within its 15 s: five, whatever went wrong.
RETRIES: Final = "#rc=5&rp=all"
