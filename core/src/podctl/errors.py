"""Every failure a user can meet: one tree, each error one line with its remedy and exit code."""

from __future__ import annotations


class PodctlError(Exception):
    """An expected failure, shown as one line and never as a traceback.

    Args:
        message: the object and the rule it broke, one line, no final full stop.
        hint: what the user can do about it (a flag, a package, a command), one line.
    """

    exit_code = 254
    #: traceback of the child process it comes from, for --debug
    debug: str | None = None

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class UsageError(PodctlError):
    """The command line or a configuration file asks for something contradictory or unknown."""


class InvalidInput(PodctlError):
    """Text or bytes from outside break the rules of their format."""


class ManifestInvalid(InvalidInput):
    """A JSON document (image manifest, pod manifest, configuration) breaks its schema."""


class ReferenceInvalid(InvalidInput):
    """An image reference matches none of the accepted forms."""


class ArchiveInvalid(InvalidInput):
    """A tar stream, or the compression around it, is malformed or breaks a rule or a cap."""


class DigestMismatch(InvalidInput):
    """Bytes are not those that a digest or a size names."""


class BrokenStream(PodctlError):
    """A neighbour in a chain of processes ended first; the cause is in its own error."""


class KeyInvalid(InvalidInput):
    """A public key or a signature cannot be parsed."""


class NotFound(PodctlError):
    """A pod, image, key or file that was named does not exist."""


class ImageGone(NotFound):
    """An image that was in the store when it was looked up has been removed meanwhile."""


class Ambiguous(PodctlError):
    """A shortened name fits several objects."""


class Refused(PodctlError):
    """Well-formed, but policy or the chosen flavor does not allow it."""


class TrustRefused(Refused):
    """No trusted signature stands for the image."""


class FetchFailed(PodctlError):
    """A remote or local source did not deliver what was asked."""


class StoreCorrupt(PodctlError):
    """Bytes in the data directory are not what their name or record says."""


class PodStateError(PodctlError):
    """The pod is in a state that does not allow the operation."""


class HostLacks(PodctlError):
    """The kernel, a program or a privilege that is needed is missing on this host."""


class AppNotFound(PodctlError):
    """The program an app names is not in its image; exit code as a shell's."""

    exit_code = 127


class AppNotExecutable(PodctlError):
    """What the app names is there, but no program this host can execute; as a shell's."""

    exit_code = 126


class PluginError(PodctlError):
    """A plugin cannot serve: see the subclasses."""


class PluginMissing(PluginError):
    """No installed distribution offers the name."""


class PluginBroken(PluginError):
    """A provider failed to import, to validate, or returned what its spec does not allow."""


class PluginConflict(PluginError):
    """Two distributions offer one name."""
