"""Errors of this package that a user can mend. The harness shows each as one line."""


class ConfigError(ValueError):
    """A method's config that cannot be built."""


class CheckpointError(ValueError):
    """Weights that cannot be read or do not fit the model."""
