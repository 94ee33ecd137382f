"""Whatever bytes come, a value or one of two refusals comes out, soon."""

from __future__ import annotations

import contextlib
import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podctl.errors import ManifestInvalid, Refused
from podctl.model.imagedocument import ImageDocument
from podctl.model.labels import VALID_OS_ARCH
from podctl_fetch_docker.config import parse_config
from podctl_fetch_docker.convert import to_annotations, to_app
from podctl_fetch_docker.format import oci
from podctl_fetch_docker.manifests import Index, check_image, parse_top
from podctl_fetch_docker.platforms import choose, wanted_platform

if TYPE_CHECKING:
    from collections.abc import Callable

DATA = Path(__file__).parent / "data"
SAMPLES = sorted(path.read_bytes() for path in DATA.glob("*.json"))
EXAMPLES = 400

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)


def documents(data: bytes, content_type: str | None = None) -> None:
    top = parse_top(data, content_type)
    if isinstance(top, Index):
        choose(top, wanted_platform({"os": "linux", "arch": "amd64"}))
    else:
        check_image(top)


def configurations(data: bytes) -> None:
    config = parse_config(data)
    app = to_app(config.settings)
    to_annotations(config, {})
    assert all("=" not in name for name in app.environment)
    assert len({point.name for point in app.mount_points}) == len(app.mount_points)


def images(data: bytes) -> None:
    image = oci.format_image(manifest=data)
    assert image.labels["arch"] in VALID_OS_ARCH["linux"]
    oci.format_documents(manifest=data)


READERS: tuple[Callable[[bytes], None], ...] = (documents, configurations, images)


def survives(read: Callable[[bytes], None], data: bytes) -> None:
    with contextlib.suppress(ManifestInvalid, Refused):
        read(data)


@pytest.mark.parametrize("read", READERS)
@given(data=st.binary(max_size=200))
@settings(max_examples=EXAMPLES, deadline=None)
def test_any_bytes(read: Callable[[bytes], None], data: bytes) -> None:
    survives(read, data)


@pytest.mark.parametrize("read", READERS)
@given(value=json_values)
@settings(max_examples=EXAMPLES, deadline=None)
def test_any_json(read: Callable[[bytes], None], value: Any) -> None:
    survives(read, json.dumps(value).encode())


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value inside a value."""
    inner: list[tuple[Any, ...]] = [path] if path else []
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            inner += places(item, (*path, key))
    return inner


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """The value with one of its parts replaced."""
    copy = json.loads(json.dumps(value))
    at = copy
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = new
    return copy


@pytest.mark.parametrize("read", [documents, configurations])
@given(sample=st.sampled_from(SAMPLES), new=json_values, seed=st.integers(0, 1 << 30))
@settings(max_examples=EXAMPLES * 2, deadline=None)
def test_a_real_document_with_one_value_replaced(
    read: Callable[[bytes], None], sample: bytes, new: Any, seed: int
) -> None:
    value = json.loads(sample)
    path = random.Random(seed).choice(places(value))
    survives(read, json.dumps(replaced(value, path, new)).encode())


@given(sample=st.sampled_from(SAMPLES), seed=st.integers(0, 1 << 30))
@settings(max_examples=EXAMPLES, deadline=None)
def test_a_real_document_with_bytes_flipped(sample: bytes, seed: int) -> None:
    dice, data = random.Random(seed), bytearray(sample)
    for _ in range(dice.randint(1, 4)):
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    for read in READERS:
        survives(read, bytes(data))


@given(parts=st.tuples(*[st.sampled_from(SAMPLES)] * 3), index=st.booleans())
@settings(max_examples=EXAMPLES, deadline=None)
def test_real_documents_put_together_at_random(
    parts: tuple[bytes, bytes, bytes], index: bool
) -> None:
    top, manifest, config = parts
    made = ImageDocument("r.example/a:1", top if index else None, manifest, config)
    survives(images, made.dump())


@pytest.mark.parametrize(
    "settings_of",
    [
        {"Env": [f"A{n}=" + "x" * 100 for n in range(30_000)]},
        {"Volumes": {f"/v{n}": {} for n in range(200_000)}},
        {
            "ExposedPorts": {
                f"{n % 65535 + 1}/{p}": {} for n in range(65535) for p in ("tcp", "udp")
            }
        },
        {"Volumes": {"/" + "-" * 250: {}, **{"/" + "_" * n: {} for n in range(250)}}},
        {"Labels": {f"io.podctl.{n}": "x" for n in range(100_000)}},
        {"User": "9" * 3_000_000},
        {"StopSignal": "9" * 3_000_000},
        {"WorkingDir": "/" * 3_000_000},
        {"Cmd": ["x"] * 600_000},
    ],
    ids=lambda value: "-".join(value),
)
def test_large_configurations_take_no_long_time(settings_of: dict[str, Any]) -> None:
    value = {
        "os": "linux",
        "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": []},
        "config": settings_of,
    }
    survives(configurations, json.dumps(value).encode())
