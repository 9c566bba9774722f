"""Receive webhooks on port 9000 and verify their signature: python receive_webhooks.py whsec_…"""

import base64
import hashlib
import hmac
import json
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

SECRET = base64.b64decode(sys.argv[1].removeprefix("whsec_"))


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        signed = f"{self.headers['webhook-id']}.{self.headers['webhook-timestamp']}.".encode() + body
        expected = "v1," + base64.b64encode(hmac.digest(SECRET, signed, hashlib.sha256)).decode()
        # Several signatures while a secret is being rotated; a timestamp that is not old keeps replays out.
        genuine = any(hmac.compare_digest(expected, one) for one in self.headers["webhook-signature"].split())
        fresh = abs(time.time() - int(self.headers["webhook-timestamp"])) < 300
        self.send_response(204 if genuine and fresh else 401)
        self.end_headers()
        event = json.loads(body)
        print(genuine, event["metadata"]["sequence"], event["metadata"]["event"], event["internal_status"], flush=True)

    def log_message(self, *_: object) -> None:
        """Only the events are worth a line."""


HTTPServer(("127.0.0.1", 9000), Receiver).serve_forever()
