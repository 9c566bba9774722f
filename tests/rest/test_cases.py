"""The cases in `cases/`, through REST and through native gRPC, both through Envoy."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import grpc.aio
import pytest

from server.caller import BearerType
from server.db import Database
from server.events.relay import Relay
from server.notifications import Notifications
from server.webhooks import endpoints
from tests.calls.twilio import Script
from tests.conftest import MakeClient
from tests.factories import make_messaging_service
from tests.rest.case import (
    Answer,
    Caller,
    Case,
    Json,
    Step,
    details,
    differences,
    filled,
    grpc_caller,
    load,
    rest_caller,
    with_patterns,
)
from tests.rest.front import Front

FOLDER = Path(__file__).parent
GOLDEN = FOLDER.parent / "golden" / "rest"
CASES = load(FOLDER / "cases")
CALLERS = {
    "admin": BearerType.ADMIN,
    "application": BearerType.APPLICATION,
    "other": BearerType.APPLICATION,
    "user": BearerType.USER,
}


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CASES])
async def test_through_rest(
    case: Case, front: Front, client_of: MakeClient, db: Database, notifications: Notifications
) -> None:
    async with aiohttp.ClientSession(front.url) as session:
        await run(case, rest_caller(session), client_of, db, Relay(db, notifications, endpoints.fan_out))


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CASES if not case.only_rest])
async def test_through_grpc(
    case: Case, front: Front, client_of: MakeClient, db: Database, notifications: Notifications
) -> None:
    async with grpc.aio.insecure_channel(front.target) as channel:
        await run(case, grpc_caller(channel), client_of, db, Relay(db, notifications, endpoints.fan_out))


async def run(case: Case, call: Caller, client_of: MakeClient, db: Database, relay: Relay) -> None:
    await make_messaging_service(db)
    tokens: dict[str, str | None] = {"nobody": None}
    variables: dict[str, Json] = {"in_an_hour": (datetime.now(UTC) + timedelta(hours=1)).isoformat()}
    for name, bearer_type in CALLERS.items():
        client = await client_of(bearer_type)
        tokens[name] = client.token
        variables |= {f"{name}_id": client.bearer_id, f"{name}_token": client.token}

    for number, written in enumerate(case.steps, 1):
        step = Step(**filled(written, variables))
        if step.after_relay:
            await relay.run_once()
        answer = await call(step, step.token or tokens[step.by])
        assert problems(step, answer) == [], f"step {number}: {step.call}"
        variables |= {name: found_at(path, answer.body) for name, path in step.save.items()}
        if step.save_next_page:
            assert answer.next_page_token
            variables[step.save_next_page] = answer.next_page_token


def found_at(path: str, body: Json) -> Json:
    """The value at a path such as `0.id`."""
    for step in path.split("."):
        body = body[int(step) if isinstance(body, list) else step]
    return body


def problems(step: Step, answer: Answer) -> list[str]:
    found = []
    if answer.http_status not in (None, step.answer):
        found.append(f"status {answer.http_status} is not {step.answer}: {answer.body}")
    if answer.code != step.grpc:
        found.append(f"code {answer.code} is not {step.grpc}: {answer.body}")
    if found:
        return found
    if step.reason is not None:
        found += differences({"error": {"reason": step.reason}}, answer.body)
    if step.fields is not None:
        violations = details(answer.body, "BadRequest").get("field_violations", [])
        found += differences(step.fields, [violation["field"] for violation in violations], "fields")
    if step.metadata is not None:
        expected = {key: str(value) for key, value in step.metadata.items()}
        found += differences(expected, details(answer.body, "ErrorInfo").get("metadata", {}), "metadata")
    if step.expect is not None:
        found += differences(step.expect, answer.body)
    found += [f"body.{name} is there" for name in step.absent if name in answer.body]
    if step.golden is not None:
        golden = json.loads((GOLDEN / f"{step.golden}.json").read_text())
        assert without_http_code(with_patterns(answer.body)) == without_http_code(golden)
    if step.golden_xml is not None:
        assert Script(answer.body.encode()).is_golden(step.golden_xml)
    found += differences(step.answer_headers, answer.headers, "headers")
    return found


def without_http_code(body: Json) -> Json:
    """An error without the one thing of it that gRPC does not tell."""
    if isinstance(body, dict) and "error" in body:
        return {"error": {key: value for key, value in body["error"].items() if key != "code"}}
    return body
