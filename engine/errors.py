"""Errors that a user can act on: each says which file, what is wrong and what to do."""


class NuclixError(Exception):
    """Base of every error that nuclix raises on purpose; its text is written for the user."""


class UsageError(NuclixError):
    """The command was asked for something that does not exist or does not fit (exit code 2)."""


class SlideError(NuclixError):
    """A slide can't be read or lacks what the run needs; other slides go on."""


class UnsupportedSlideError(SlideError):
    """A slide is intact, but of a kind that this reader does not read; another reader may."""


class ModelError(NuclixError):
    """A model file can't be used."""


class PluginError(NuclixError):
    """A plugin is missing, named twice, or fails to load."""


class OutputError(NuclixError):
    """Results can't be written."""


class DeviceMemoryError(NuclixError):
    """The device has not the memory for a batch of this size; a smaller one may fit."""


class DeviceError(NuclixError):
    """The device has failed in a way that this process can't get over; another process may."""


class DataError(NuclixError):
    """Images or labels for training or evaluation can't be used."""


class Interrupted(NuclixError):  # noqa: N818 (a request that was met, not an error)
    """The run was asked to stop; what is committed stays, and the same command resumes."""
