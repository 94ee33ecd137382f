"""SHA-2 of a few bytes, without OpenSSL.

hashlib loads OpenSSL's library when it is imported, which takes longer than a digest of what is
hashed on the way to a pod: a URL, a key, an image's documents. The interpreter's own functions
give the same digests. Bytes in bulk are for hashlib, whose functions are faster.
"""

from __future__ import annotations

import sys

try:
    # As the standard library's `random` does.
    if sys.version_info >= (3, 12):
        from _sha2 import sha256, sha512
    else:
        from _sha256 import sha256  # type: ignore[import-not-found]
        from _sha512 import sha512  # type: ignore[import-not-found]
except ImportError:  # an interpreter that was built without them
    from hashlib import sha256, sha512


def sha256_hex(data: bytes) -> str:
    """The SHA-256 as 64 digits."""
    return str(sha256(data).hexdigest())


def sha512_hex(data: bytes) -> str:
    """The SHA-512 as 128 digits."""
    return str(sha512(data).hexdigest())
