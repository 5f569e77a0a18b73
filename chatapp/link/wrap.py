"""What the engine tells of long work, put into messages."""

from __future__ import annotations

from chatapp.chat.bench import BenchEvent, BenchResult
from chatapp.chat.facts import Progress
from chatapp.chat.generation import GenerationEnd, GenerationEvent, Paused, PromptRead, TokenStep
from chatapp.chat.record import TokenRecord
from chatapp.chat.scoring import ScoreEnd, ScoreEvent, ScoreStart
from chatapp.chat.search import (
    BeamEnd,
    BeamEvent,
    BeamStep,
    ColumnEvent,
    ContrastiveEnd,
    ContrastiveEvent,
    ContrastiveStep,
    SeveralEvent,
)
from chatapp.link import messages

Wrapped = GenerationEvent | SeveralEvent | BeamEvent | ContrastiveEvent | ScoreEvent | BenchEvent


def wrap(number: int, event: Wrapped) -> messages.Event:
    """An event of the request of that number, as it goes over the wire."""
    match event:
        case TokenStep():
            return messages.TokenEvent(request=number, step=event)
        case PromptRead():
            return messages.PromptReadEvent(request=number, read=event)
        case Paused():
            return messages.PausedEvent(request=number, paused=event)
        case GenerationEnd():
            return messages.EndEvent(request=number, end=event)
        case Progress():
            return messages.ProgressEvent(request=number, progress=event)
        case ColumnEvent():
            return _wrap_column(number, event)
        case BeamStep():
            return messages.BeamStepEvent(request=number, step=event)
        case BeamEnd():
            return messages.BeamEndEvent(request=number, end=event)
        case ContrastiveStep():
            return messages.ContrastiveStepEvent(request=number, step=event)
        case ContrastiveEnd():
            return messages.ContrastiveEndEvent(request=number, end=event)
        case ScoreStart():
            return messages.ScoreStartEvent(request=number, start=event)
        case TokenRecord():
            return messages.ScoredEvent(request=number, record=event)
        case ScoreEnd():
            return messages.ScoreEndEvent(request=number, end=event)
        case BenchResult():
            return messages.BenchEvent(request=number, result=event)


def _wrap_column(number: int, told: ColumnEvent) -> messages.Event:
    if isinstance(told.event, TokenStep):
        return messages.ColumnTokenEvent(request=number, column=told.column, step=told.event)
    return messages.ColumnEndEvent(request=number, column=told.column, end=told.event)
