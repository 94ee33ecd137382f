"""AWS Signature Version 4 for reading from S3 (the algorithm AWS4-HMAC-SHA256)."""

from __future__ import annotations

import hashlib
import hmac
import time
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, unquote

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podctl.http.urls import Target

_EMPTY = hashlib.sha256(b"").hexdigest()
DEFAULT_REGION = "us-east-1"


def sign(
    method: str,
    target: Target,
    headers: Mapping[str, str],
    fields: Mapping[str, str],
    now: float | None = None,
) -> dict[str, str]:
    """Return the headers that authenticate one bodyless request to S3.

    Args:
        headers: further headers of the request; Range is covered by the signature.
        fields: `accessKeyID`, `secretAccessKey` and, if given, `awsRegion`.
        now: seconds since the epoch; None: the clock.
    """
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    region = fields.get("awsRegion") or region_of(target.host)
    signed = {
        "host": target.authority,
        "x-amz-content-sha256": _EMPTY,
        "x-amz-date": moment,
        **{name.lower(): value for name, value in headers.items() if name.lower() == "range"},
    }
    names = ";".join(sorted(signed))
    canonical = "\n".join(
        [
            method,
            # S3, unlike AWS's other services, encodes path segments once.
            quote(unquote(target.path), safe="/-_.~"),
            _canonical_query(target.query),
            *(f"{name}:{signed[name].strip()}" for name in sorted(signed)),
            "",
            names,
            _EMPTY,
        ]
    )
    scope = f"{moment[:8]}/{region}/s3/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = ("AWS4" + fields["secretAccessKey"]).encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    credential = f"{fields['accessKeyID']}/{scope}"
    return {
        "x-amz-content-sha256": _EMPTY,
        "x-amz-date": moment,
        "Authorization": f"AWS4-HMAC-SHA256 Credential={credential},"
        f"SignedHeaders={names},Signature={signature}",
    }


def region_of(host: str) -> str:
    """Guess an S3 host's region: `s3.REGION.amazonaws.com`, `s3-REGION...`, bucket in front."""
    labels = host.removesuffix(".cn").split(".")
    if labels[-2:] != ["amazonaws", "com"]:
        return DEFAULT_REGION
    inner = labels[:-2]
    if inner and inner[-1].startswith("s3-"):
        region = inner[-1].removeprefix("s3-")
        return DEFAULT_REGION if region == "external-1" else region
    if len(inner) >= 2 and inner[-1] != "s3":
        return inner[-1]
    return DEFAULT_REGION


def _canonical_query(query: str) -> str:
    pairs = parse_qsl(query, keep_blank_values=True)
    return "&".join(sorted(f"{quote(k, safe='-_.~')}={quote(v, safe='-_.~')}" for k, v in pairs))
