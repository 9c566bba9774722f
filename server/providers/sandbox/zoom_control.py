"""What a person or a test tells the sandbox's Zoom, and asks of it.

POST   /sandbox/video/join         {"token", "session_name", "name"}: somebody comes with a Video SDK token; a
                                    `session_name` that is given must be the token's, as in the SDK. Or {"phone_number",
                                    "session", "name"}: by telephone, without a token
POST   /sandbox/video/leave        {"user"}: somebody goes, named by id or name
POST   /sandbox/video/end          {"session"}: a host ends it for everybody
POST   /sandbox/video/recording    {"session", "act"}: a host does one of start, pause, resume, stop; or somebody, with
                                    the files of a session that has ended, one of trash, delete, recover
POST   /sandbox/video/events       {"session", "event", "object"}: any other event, with these fields beside those that
                                    name the session
POST   /sandbox/video/validation   {}: ask the endpoint to prove that it knows the secret token
GET    /sandbox/video/sessions     every session, oldest first, who is or was in it, and its files

A session is named by its id or its name, of several the last. `session` and `user` may be left out where there is one
alone that could be meant. Whoever acts as a host needs one in the session. What is posted is answered when the events
have been posted once:

{"session": …as in GET /sandbox/video/sessions…, "user": …of a join…,
 "webhook_url": "http://…", "callbacks": "in-order",
 "told": [{"event": "session.started",
           "status": 200,       null where nobody answered
           "failure": null}]}   4xx, 5xx, ct or rt where it was not taken, and will be posted again

`told` is empty where callbacks are missing, and where they are reordered while the session is live. How often and how
events are posted is in `zoom_webhooks.py`, what a token must be in `zoom_tokens.py`.
"""

import asyncio
from dataclasses import asdict
from typing import Any

from aiohttp import web

from server.providers.sandbox.fields import ControlRefusal, Fields, fields_of, one_of
from server.providers.sandbox.misbehaviour import TriggerUnknown
from server.providers.sandbox.validity import is_phone_number
from server.providers.sandbox.zoom_app import Zoom
from server.providers.sandbox.zoom_events import Json, event_of, file_of, session_of
from server.providers.sandbox.zoom_people import RECORDING_ACTS, SHELF_ACTS, NotNow, Telling
from server.providers.sandbox.zoom_records import Session, User
from server.providers.sandbox.zoom_tokens import TokenRefused, admission_of

_PREFIX = "/sandbox/video/"
_MAX_NAME = 200


class ZoomControl:
    """The control API of one account's Zoom."""

    def __init__(self, zoom: Zoom, *, base_url: str | None) -> None:
        self._zoom = zoom
        self._base_url = base_url

    def routes(self) -> list[web.RouteDef]:
        """Where it lives."""
        return [
            web.post(f"{_PREFIX}join", self.join),
            web.post(f"{_PREFIX}leave", self.leave),
            web.post(f"{_PREFIX}end", self.end),
            web.post(f"{_PREFIX}recording", self.recording),
            web.post(f"{_PREFIX}events", self.say),
            web.post(f"{_PREFIX}validation", self.validate),
            web.get(f"{_PREFIX}sessions", self.sessions),
        ]

    async def join(self, request: web.Request) -> web.Response:
        """Somebody comes; the first starts the session."""
        fields = await fields_of(request)
        phone_number = fields.take("phone_number", _is_phone_number, "a phone number such as +14155550123")
        name = fields.take("name", _is_name, f"1 to {_MAX_NAME} characters")
        if phone_number is not None:
            session = self._live(fields)
            fields.finish()
            joined = self._zoom.people.dial_in(session, name=name or "Caller", phone_number=phone_number[1:])
            return await self._answer(joined.session, joined.telling, user=joined.user)
        token = fields.need("token", _is_text, "a Video SDK token, or phone_number must be given")
        session_name = fields.take("session_name", _is_text, "the name of the session")
        fields.finish()
        try:
            admission = admission_of(token, self._zoom.account, session_name=session_name, now=self._zoom.state.now())
            joined = self._zoom.people.join(
                admission,
                name=name or ("Host" if admission.is_host else "Participant"),
                base_url=self._base_url or str(request.url.origin()),
            )
        except TokenRefused as refused:
            errors = [{"field": field, "description": said} for field, said in refused.errors.items()]
            raise ControlRefusal(str(refused), errors) from refused
        except TriggerUnknown as unknown:
            raise ControlRefusal.of(
                "token.tpc", f"must not have {unknown}, which the sandbox does not know"
            ) from unknown
        return await self._answer(joined.session, joined.telling, user=joined.user)

    async def leave(self, request: web.Request) -> web.Response:
        """Somebody goes; the last ends the session."""
        fields = await fields_of(request)
        wanted = fields.take("user", _is_text, "the id or the name of somebody who is in a session")
        fields.finish()
        present = [(session, user) for session in self._zoom.state.live() for user in session.present]
        found = [each for each in present if wanted in (None, each[1].id, each[1].name)]
        people = ", ".join(f"{user.id} ({user.name})" for _, user in present) or "nobody is"
        if len(found) != 1:
            raise ControlRefusal.of("user", f"must be one of those who are in a session: {people}")
        session, user = found[0]
        return await self._answer(session, self._zoom.people.leave(session, user), user=user)

    async def end(self, request: web.Request) -> web.Response:
        """A host ends a session."""
        fields = await fields_of(request)
        session = self._live(fields)
        fields.finish()
        _need_host(session)
        return await self._answer(session, self._zoom.people.end(session))

    async def recording(self, request: web.Request) -> web.Response:
        """A host records, or somebody moves what was recorded."""
        fields = await fields_of(request)
        acts = [*RECORDING_ACTS, *SHELF_ACTS]
        act = fields.need("act", one_of(acts), f"one of {', '.join(acts)}")
        moves = act in SHELF_ACTS
        session = self._any(fields) if moves else self._live(fields)
        fields.finish()
        if not moves:
            _need_host(session)
        people = self._zoom.people
        try:
            telling = people.move(session, act) if moves else people.record(session, act)
        except NotNow as why:
            raise ControlRefusal.of("act", f"must be one that means something now: {why}") from why
        return await self._answer(session, telling)

    async def say(self, request: web.Request) -> web.Response:
        """Have an event told that nothing here leads to."""
        fields = await fields_of(request)
        event = fields.need("event", _is_text, "the name of an event such as session.alert")
        obj = fields.take("object", lambda value: isinstance(value, dict), "an object")
        session = self._any(fields)
        fields.finish()
        told = event_of(event, {**session_of(session), **(obj or {})}, at=self._zoom.state.now())
        return await self._answer(session, self._zoom.people.say(session, told))

    async def validate(self, request: web.Request) -> web.Response:
        """Post `endpoint.url_validation`, and check the answer."""
        (await fields_of(request)).finish()
        return web.json_response(asdict(await self._zoom.webhooks.validate()))

    async def sessions(self, _: web.Request) -> web.Response:
        """Every session."""
        return web.json_response({"sessions": [_session(each) for each in self._zoom.state.sessions.values()]})

    def _live(self, fields: Fields) -> Session:
        live = self._zoom.state.live()
        names = ", ".join(f"'{session.name}'" for session in live) or "there is none"
        return _chosen(fields, live, wanted=f"a live session: {names}")

    def _any(self, fields: Fields) -> Session:
        return _chosen(fields, [*self._zoom.state.sessions.values()], wanted="a session")

    async def _answer(self, session: Session, telling: Telling, *, user: User | None = None) -> web.Response:
        if telling:
            await asyncio.wait(telling)
        # Cancelled by a reset in between.
        told = [asdict(task.result()) for task in telling if not task.cancelled()]
        return web.json_response(
            {
                "session": _session(session),
                **({} if user is None else {"user": asdict(user)}),
                "webhook_url": self._zoom.account.webhook_url,
                "callbacks": self._zoom.people.callbacks(session.name),
                "told": told,
            }
        )


class NoZoom:
    """What stands in place of a Zoom that is not played."""

    def routes(self) -> list[web.RouteDef]:
        """Where it would be."""
        return [web.route("*", f"{_PREFIX}{{path:.*}}", self.refuse)]

    async def refuse(self, _: web.Request) -> web.Response:
        """Says why."""
        raise ControlRefusal("this sandbox plays no Zoom: it was started without an account there")


def _chosen(fields: Fields, among: list[Session], *, wanted: str) -> Session:
    written = fields.take("session", _is_text, f"the id or the name of {wanted}")
    if written is None:
        found = among if len(among) == 1 else []
    else:
        found = [each for each in among if written == each.id or written.lower() == each.name.lower()]
    if found:
        return found[-1]
    fields.refuse("session", f"the id or the name of {wanted}")
    fields.finish()
    raise AssertionError("a refused field ends the request")


def _need_host(session: Session) -> None:
    if not any(user.is_host for user in session.present):
        raise ControlRefusal.of("session", "must have a host in it")


def _session(session: Session) -> Json:
    shown: dict[str, Any] = asdict(session)
    del shown["base_url"], shown["due"]
    shown["files"] = [{**file_of(session, file), "start": file.start, "end": file.end} for file in session.files]
    return shown


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip()) and len(value) <= _MAX_NAME


def _is_phone_number(value: Any) -> bool:
    return isinstance(value, str) and is_phone_number(value)
