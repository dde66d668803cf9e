"""Many requests at once behind one model: what a server, or a batch of questions, runs on."""

from lightning_mono.engine.engine import Engine
from lightning_mono.engine.errors import (
    EngineClosed,
    EngineError,
    EngineFull,
    RequestRefused,
    RequestTooLong,
)
from lightning_mono.engine.request import Request
from lightning_mono.engine.settings import EngineSettings
from lightning_mono.engine.stats import EngineStats
from lightning_mono.engine.ticket import FinishReason, Ticket

__all__ = [
    "Engine",
    "EngineClosed",
    "EngineError",
    "EngineFull",
    "EngineSettings",
    "EngineStats",
    "FinishReason",
    "Request",
    "RequestRefused",
    "RequestTooLong",
    "Ticket",
]
