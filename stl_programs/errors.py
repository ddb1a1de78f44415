"""What can go wrong, as one base and few children; each message says the value, the limit and what to do."""


class StlError(Exception):
    """Base of every error that this project raises on purpose."""


class TaskError(StlError, ValueError):
    """A task, action or answer that the environment cannot accept."""


class ModelError(StlError):
    """A model cannot be reached, loaded or used as asked."""


class OutOfRange(ModelError):
    """A prompt the model cannot read at all (a number outside its vocabulary): the estimate is missing."""


class AdapterError(StlError):
    """An adapter that does not belong to this base model, signature or file."""


class JournalError(StlError):
    """A journal that belongs to another run, or cannot be written."""


class RewardSealed(StlError):
    """The environment's reward was asked for during a reward-free search."""
