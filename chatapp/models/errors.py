"""What can be wrong with a model, each kind its own class, so that callers can tell them apart."""

from __future__ import annotations

from chatapp.chat.errors import FetchError, ModelError


class UnknownModel(ModelError):
    """No model goes by that name, or nothing is at that path."""


class DamagedModel(ModelError):
    """A file that is cut off, altered, or not what its name says."""


class RefusedModel(ModelError):
    """A model that is whole but is not loaded: pickled weights, or no causal language model."""


class SourceFailed(FetchError):
    """One source did not give the model; another may. The message says only why."""


class WrongContent(SourceFailed):
    """A source sent other bytes than were expected; they were deleted."""


class FetchStopped(FetchError):
    """The user stopped a fetch; what came is kept, and the next one goes on from there."""


class OfflineError(FetchError):
    """The model would have to be fetched, and the network may not be used."""
