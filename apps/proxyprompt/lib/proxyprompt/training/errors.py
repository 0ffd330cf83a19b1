"""What a training cannot do."""


class TrainingError(RuntimeError):
    """A training that cannot start or go on. The message says what was given, what was expected, what to do."""


class TrainingStopped(Exception):
    """Somebody asked the training to stop; called again, it goes on from its checkpoint."""
