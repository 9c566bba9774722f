"""What every process of ours does alike: it logs, and ends when it is asked to."""

import asyncio
import logging
import signal
from typing import BinaryIO

import orjson
import structlog
from structlog.tracebacks import ExceptionDictTransformer

# One JSON object a line. A traceback comes without local variables: they hold bodies, numbers and secrets.
LOG_PROCESSORS: tuple[structlog.typing.Processor, ...] = (
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False)),
    structlog.processors.JSONRenderer(serializer=lambda value, **_: orjson.dumps(value, default=str)),
)


def log_json(*, to: BinaryIO | None = None) -> None:
    """Log to standard output, or elsewhere where that is for what a command prints."""
    structlog.configure(
        processors=LOG_PROCESSORS,
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.BytesLoggerFactory(to),
        cache_logger_on_first_use=True,
    )


def stop_on_signals() -> asyncio.Event:
    """An event that SIGTERM or SIGINT sets, from now on, instead of ending the process."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop
