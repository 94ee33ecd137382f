"""The command line's way to a fetch session: configuration, keys, proxies, progress."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from podctl.cli.output import say
from podctl.images.session import FetchSession, proxies_from
from podctl.trust.keystore import KeyStore

if TYPE_CHECKING:
    from podctl.cli.context import Globals


def open_session(options: Globals, speaker: str = "image") -> FetchSession:
    """Return what `fetch`, `trust`, `run` and `prepare` need to get images.

    Args:
        speaker: what messages begin with.

    Raises:
        ManifestInvalid, UsageError: a configuration file breaks its rules.
    """
    line = layers = None
    if sys.stderr.isatty():
        from podctl.cli.progress import LayerLines, ProgressLine

        line, layers = ProgressLine(), LayerLines()

    def tell(text: str) -> None:
        if line is not None and layers is not None:
            line.clear()
            layers.clear()
        say(speaker, text)

    return FetchSession(
        store=options.store(),
        keystore=KeyStore(options.system_config, options.local_config),
        load_credentials=options.config().credentials,
        load_registry_credentials=options.config().registry_credentials,
        insecure=options.insecure,
        trust_keys_from_https=options.trust_keys_from_https,
        proxies=proxies_from(os.environ),
        say=tell,
        progress=line,
        layer_progress=layers,
    )
