"""What annotations say of how a converted image runs."""

from __future__ import annotations

import signal

import pytest

from podctl.errors import InvalidInput
from podctl.model.conversion import kept_annotations
from podctl.model.podmanifest import PodManifest, RuntimeApp, parse_pod_manifest

SIGNAL, TIMEOUT = "appc.io/docker/stopsignal", "appc.io/docker/stoptimeout"
REPOSITORY = "appc.io/docker/repository"


def app(**annotations: str) -> RuntimeApp:
    return RuntimeApp("app", "sha512-" + "a" * 64, annotations=annotations)


def test_an_image_that_says_nothing_is_appc_s() -> None:
    assert (app().converted, app().stop_signal, app().stop_timeout) == (False, signal.SIGTERM, None)


def test_what_an_image_says_is_kept_in_the_pod() -> None:
    image = {REPOSITORY: "team/app", SIGNAL: "SIGQUIT", TIMEOUT: "30", "appc.io/docker/cmd": "[]"}
    kept = kept_annotations(image, {"mine": "x"})
    assert kept == {REPOSITORY: "team/app", SIGNAL: "SIGQUIT", TIMEOUT: "30", "mine": "x"}
    manifest = PodManifest(apps=(app(**kept),))
    found = parse_pod_manifest(manifest.to_json()).apps[0]
    assert (found.converted, found.stop_signal, found.stop_timeout) == (True, signal.SIGQUIT, 30)


def test_the_user_s_annotation_wins() -> None:
    kept = kept_annotations({SIGNAL: "SIGQUIT"}, {SIGNAL: "INT"})
    assert app(**kept).stop_signal == signal.SIGINT


@pytest.mark.parametrize(
    ("name", "value"),
    [(SIGNAL, "SIGNONE"), (SIGNAL, ""), (TIMEOUT, "-1"), (TIMEOUT, "1s"), (TIMEOUT, "9" * 20)],
)
def test_what_is_no_signal_or_time_is_refused(name: str, value: str) -> None:
    for image, own in (({name: value}, {}), ({}, {name: value})):
        with pytest.raises(InvalidInput, match=name):
            kept_annotations(image, own)
