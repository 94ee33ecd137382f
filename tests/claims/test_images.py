"""What podctl finds, downloads, verifies and runs: D1, D2, R2, R3, R4, CT2, L3, L4, N2, M3, M4.

Every pod is one of the default flavor, on the real command line, in a network whose hosts have
the names that are claimed.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import image_files
import pytest
from image_files import ARCH, manifest, pack
from live_world import Discovery
from made import saved, tar_of
from small import runnable

from podctl.testing import cosigning
from podctl.testing.cosigning import Signer
from podctl.testing.httpserver import Content, Protected
from podctl.testing.ociimages import DOCKER, OCI, index, write_layout
from podctl.testing.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from clean_home import Clean
    from registry_world import World
    from site_world import Keyring

    from podctl.testing.httpserver import Reply, Request

pytestmark = pytest.mark.root

ETCD = "coreos.com/etcd"
QUAY = "docker://quay.io/coreos/etcd"
INSECURE = "--insecure-options=image"


def path_of(version: str = "v2.2.0", suffix: str = "") -> str:
    return f"/{ETCD}-{version}-linux-{ARCH}.aci{suffix}"


def etcd(script: str = "echo etcd", version: str = "v2.2.0") -> bytes:
    """The image that is asked for all the time."""
    labels = {"version": version, "os": "linux", "arch": ARCH}
    document = manifest(ETCD, app=image_files.shell(script), labels=labels)
    return pack(document, image_files.busybox())


class Publisher:
    """coreos.com: discovery pages, an image, and a key."""

    def __init__(self, top: Path, keyring: Keyring) -> None:
        self._top, self._keyring = top, keyring
        self.key = keyring.make("CoreOS <release@coreos.com>")
        self.pages = Discovery(
            ("ac-discovery", "coreos.com https://coreos.com/{name}-{version}-{os}-{arch}.{ext}"),
            ("ac-discovery-pubkeys", "coreos.com https://coreos.com/pubkeys.gpg"),
        )
        public = keyring.export(self.key, top / "pubkeys.gpg")
        self.pages.add("/pubkeys.gpg", public.read_bytes())

    def publish(self, data: bytes, version: str = "v2.2.0", *, signed: bool = True) -> Content:
        """Serve an image and, by default, its signature."""
        if signed:
            self.pages.add(path_of(version, ".asc"), self.signature(data))
        return self.pages.add(path_of(version), data)

    def signature(self, data: bytes) -> bytes:
        file = self._top / "signed.aci"
        file.write_bytes(data)
        self._keyring.sign(self.key, file)
        return Path(f"{file}.asc").read_bytes()


@pytest.fixture
def coreos(tmp_path: Path, internet: World) -> Iterator[Publisher]:
    from site_world import Keyring

    keyring = Keyring(tmp_path / "gnupg")
    publisher = Publisher(tmp_path, keyring)
    with internet.serve(publisher.pages, "coreos.com"):
        yield publisher
    keyring.close()


@pytest.fixture
def quay(internet: World) -> Iterator[Registry]:
    registry = Registry()
    with internet.serve(registry, "quay.io"):
        yield registry


@pytest.fixture
def strict(home: Clean) -> Clean:
    """An installation as it is without an option: signatures count."""
    home.options.remove(INSECURE)
    return home


def trust_coreos(home: Clean) -> None:
    home.must("trust", f"--prefix={ETCD}", "--skip-fingerprint-review")


def said_of(home: Clean) -> dict[str, str]:
    """What status says of the only pod."""
    (uuid,) = home.pods()
    return dict(line.split("=", 1) for line in home.must("status", "--wait", uuid).splitlines())


def test_d1_an_image_of_a_registry_is_downloaded_run_and_watched(
    home: Clean, quay: Registry
) -> None:
    quay.put("coreos/etcd", runnable(kind=DOCKER, shell="echo up; read end; exit 3"), "latest")
    pod = home.start("run", "--interactive", QUAY, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert pod.stdout is not None
    assert pod.stdout.readline() == "up\n"
    ((uuid, state),) = home.pods().items()
    assert state == "running"
    shown = dict(line.split("=", 1) for line in home.must("status", uuid).splitlines())
    assert shown["state"] == "running"
    assert Path(f"/proc/{shown['pid']}").exists()
    assert "quay.io/coreos/etcd:latest" in home.must("list")
    pod.communicate("end\n", timeout=60)
    assert pod.returncode == 3
    assert said_of(home)["app-etcd"] == "3"


def test_d2_archives_and_docker_images_share_a_pod(home: Clean, quay: Registry) -> None:
    quay.put("coreos/etcd", runnable(kind=DOCKER, shell="echo docker"), "latest")
    home.install("local.example/tool", app=image_files.shell("echo archive"))
    printed = home.must("run", "local.example/tool", QUAY)
    assert sorted(printed.split()) == ["archive", "docker"]
    assert {"app-tool", "app-etcd"} <= set(said_of(home))
    shown = home.must("image", "list", "--no-legend", "--fields=name,format").splitlines()
    assert {tuple(line.split()) for line in shown} == {
        ("local.example/tool:1", "aci"),
        ("quay.io/coreos/etcd:latest", "oci"),
    }


def test_r2_after_trust_one_command_gets_from_nothing_to_a_verified_pod(
    strict: Clean, coreos: Publisher
) -> None:
    coreos.publish(etcd())
    trust_coreos(strict)
    assert not strict.data.exists() or strict.images() == []
    done = strict.podctl("run", f"{ETCD}:v2.2.0")
    assert (done.returncode, done.stdout) == (0, "etcd\n")
    assert "signature verified: CoreOS <release@coreos.com>" in done.stderr


@pytest.mark.parametrize("reference", [f"{ETCD},version=v2.2.0", f"{ETCD}:v2.2.0"])
def test_r3_the_command_line_of_the_claim(strict: Clean, coreos: Publisher, reference: str) -> None:
    coreos.publish(etcd())
    assert "signature made by unknown entity" in strict.refused("run", reference)
    trust_coreos(strict)
    assert strict.must("run", reference) == "etcd\n"


def test_r3_a_version_that_is_not_there_is_named_with_what_was_tried(
    strict: Clean, coreos: Publisher
) -> None:
    coreos.publish(etcd())
    trust_coreos(strict)
    said = strict.podctl("run", f"{ETCD},version=v9.9.9")
    assert said.returncode == 254
    assert f"https://coreos.com{path_of('v9.9.9')}" in said.stderr


@pytest.mark.parametrize("kind", [OCI, DOCKER], ids=["oci", "docker"])
@pytest.mark.parametrize("many", [False, True], ids=["manifest", "index"])
def test_r4_every_kind_of_image_runs(home: Clean, quay: Registry, kind: Any, many: bool) -> None:
    made = runnable(kind=kind, shell="echo here")
    quay.put("coreos/etcd", index(made, kind=kind) if many else made, "latest")
    assert home.must("run", QUAY) == "here\n"


def test_ct2_what_is_interrupted_goes_on_where_it_was(home: Clean, coreos: Publisher) -> None:
    import random

    files = image_files.busybox() | {"payload": random.Random(3).randbytes(600_000)}
    labels = {"version": "v2.2.0", "os": "linux", "arch": ARCH}
    document = manifest(ETCD, app=image_files.shell("echo whole"), labels=labels)
    content = coreos.publish(pack(document, files), signed=False)
    content.cuts = [300_000]
    asked: list[str | None] = []

    def route(request: Request) -> Reply:
        asked.append(request.header("Range"))
        return content(request)

    coreos.pages.files[path_of()] = route
    assert home.must("run", f"{ETCD}:v2.2.0") == "whole\n"
    assert any(one is not None and int(one[6:].rstrip("-")) >= 300_000 for one in asked)


SOURCES = ("name", "url", "file", "registry")


@pytest.fixture
def sources(
    strict: Clean, coreos: Publisher, quay: Registry, tmp_path: Path
) -> Callable[[bool], dict[str, str]]:
    """One image, signed or not, by every way to ask for one."""

    def publish(signed: bool) -> dict[str, str]:
        data = etcd()
        coreos.publish(data, signed=signed)
        file = tmp_path / "etcd.aci"
        file.write_bytes(data)
        digest = quay.put("coreos/etcd", runnable(shell="echo etcd"), "latest")
        if signed:
            Path(f"{file}.asc").write_bytes(coreos.signature(data))
            signer = Signer()
            cosigning.attach_tag(
                quay, "coreos/etcd", digest, signer.simple("quay.io/coreos/etcd", digest)
            )
            key = tmp_path / "key.pub"
            key.write_bytes(signer.public)
            words = ["--prefix=quay.io/coreos/etcd", "--skip-fingerprint-review", str(key)]
            strict.must("trust", *words)
        trust_coreos(strict)
        url = f"https://coreos.com{path_of()}"
        return dict(zip(SOURCES, (f"{ETCD}:v2.2.0", url, str(file), QUAY), strict=True))

    return publish


@pytest.mark.parametrize("flavor", ["nspawn", "fly"])
@pytest.mark.parametrize("source", SOURCES)
def test_l4_unsigned_images_are_refused_by_default(
    strict: Clean, sources: Callable[[bool], dict[str, str]], source: str, flavor: str
) -> None:
    asked = sources(False)[source]
    said = strict.refused("run", f"--stage1={flavor}", asked)
    assert "sign" in said
    assert strict.images() == []
    assert strict.pods() == {}
    # The control: it is the signature that was missing.
    assert strict.must("run", f"--stage1={flavor}", INSECURE, asked) == "etcd\n"


@pytest.mark.parametrize("flavor", ["nspawn", "fly"])
@pytest.mark.parametrize("source", SOURCES)
def test_l4_signed_ones_run_with_no_option(
    strict: Clean, sources: Callable[[bool], dict[str, str]], source: str, flavor: str
) -> None:
    assert strict.must("run", f"--stage1={flavor}", sources(True)[source]) == "etcd\n"


def test_l3_n2_nothing_has_to_be_known_or_done_by_hand(strict: Clean, coreos: Publisher) -> None:
    """No directory is made, no file unpacked, no key looked for: two commands, and the image's
    own bytes are what runs."""
    coreos.publish(etcd("cat /etc/passwd"))
    trust_coreos(strict)
    ran = strict.must("run", f"{ETCD}:v2.2.0")
    assert ran == image_files.PASSWD.decode()
    assert strict.leftovers() == []


# M3


def test_m3_ways_to_say_which_image(home: Clean, coreos: Publisher, tmp_path: Path) -> None:
    """A name by its host's pages or, where there are none, by its own path; URL, file, image ID."""
    coreos.publish(etcd(), signed=False)
    file = tmp_path / "etcd.aci"
    file.write_bytes(etcd())
    key = home.must("fetch", "--full", str(file)).strip()
    for reference in (key[:20], f"{ETCD}:v2.2.0", f"https://coreos.com{path_of()}", str(file)):
        assert home.must("run", reference) == "etcd\n", reference
    home.must("image", "rm", key)
    coreos.pages.tags = ()
    simple = path_of().replace("/coreos.com/", "/")
    coreos.pages.add(simple, etcd())
    assert home.must("run", f"{ETCD}:v2.2.0") == "etcd\n"


def test_m3_pull_policies(home: Clean, coreos: Publisher) -> None:
    asked = f"{ETCD}:v2.2.0"
    coreos.publish(etcd("echo first"), signed=False)
    assert "not in the store" in home.refused("run", "--pull-policy=never", asked)
    assert home.must("run", asked) == "first\n"
    changed = coreos.publish(etcd("echo second"), signed=False)
    changed.etag = '"second"'
    assert home.must("run", "--pull-policy=never", asked) == "first\n"
    assert home.must("run", "--pull-policy=new", asked) == "first\n"
    assert home.must("run", "--pull-policy=update", asked) == "second\n"


def test_m3_credentials_are_for_their_host_alone(home: Clean, coreos: Publisher) -> None:
    content = coreos.publish(etcd(), signed=False)
    coreos.pages.files[path_of()] = Protected("Basic dXNlcjpzZWNyZXQ=", content)
    home.refused("run", f"{ETCD}:v2.2.0")
    value = {"rktKind": "auth", "rktVersion": "v1", "type": "basic"}
    value["credentials"] = {"user": "user", "password": "secret"}  # type: ignore[assignment]
    place = home.local / "auth.d"
    place.mkdir()
    for domain, works in (("quay.io", False), ("coreos.com", True)):
        value["domains"] = [domain]  # type: ignore[assignment]
        (place / "auth.json").write_text(json.dumps(value))
        (place / "auth.json").chmod(0o600)
        assert (home.podctl("run", f"{ETCD}:v2.2.0").returncode == 0) == works, domain


def test_m3_keys_are_trusted_by_prefix(strict: Clean, coreos: Publisher) -> None:
    coreos.publish(etcd())
    strict.must("trust", "--prefix=coreos.com/other", "--skip-fingerprint-review")
    assert "unknown entity" in strict.refused("run", f"{ETCD}:v2.2.0")
    trust_coreos(strict)
    assert strict.must("run", f"{ETCD}:v2.2.0") == "etcd\n"


def test_m3_each_insecure_option_allows_its_own_part(
    strict: Clean, coreos: Publisher, internet: World
) -> None:
    """Here of three: where to look for it, whose host it is, who has signed it."""
    coreos.publish(etcd(), signed=False)
    place = "coreos.com http://coreos.com/{name}-{version}-{os}-{arch}.{ext}"
    asked = ("run", f"{ETCD}:v2.2.0")
    with internet.serve(coreos.pages, "coreos.com", tls=False):
        coreos.pages.tags = (("ac-discovery", place),)
        assert "plain http: refused" in strict.refused(asked[0], INSECURE, asked[1])
        assert "sign" in strict.refused(asked[0], "--insecure-options=http", asked[1])
        assert strict.must(asked[0], "--insecure-options=http,image", asked[1]) == "etcd\n"


def test_m3_what_has_not_changed_is_not_downloaded_again(home: Clean, coreos: Publisher) -> None:
    coreos.publish(etcd(), signed=False)
    home.must("fetch", f"{ETCD}:v2.2.0")
    assert "is unchanged, not fetching" in home.podctl("fetch", f"{ETCD}:v2.2.0").stderr


# M4


@pytest.mark.parametrize("way", ["gzip", "bzip2", "xz", "none"])
def test_m4_archives_in_every_compression(home: Clean, tmp_path: Path, way: str) -> None:
    plain = tmp_path / "etcd.tar"
    plain.write_bytes(subprocess.run(["gzip", "-dc"], input=etcd(), capture_output=True,
                                     check=True).stdout)  # fmt: skip
    file = tmp_path / "etcd.aci"
    data = plain.read_bytes()
    if way != "none":
        data = subprocess.run([way, "-c"], input=data, capture_output=True, check=True).stdout
    file.write_bytes(data)
    assert home.must("run", str(file)) == "etcd\n"


@pytest.mark.parametrize("form", ["oci", "oci-archive", "docker-archive"])
def test_m4_images_that_lie_here_as_files(home: Clean, tmp_path: Path, form: str) -> None:
    made = runnable(shell="echo laid out")
    place = tmp_path / "image"
    if form == "docker-archive":
        tar_of(place, saved(made, "local.example/app:1"))
    else:
        layout = write_layout(tmp_path / "layout", {"1": made})
        if form == "oci":
            os.rename(layout, place)
        else:
            subprocess.run(["tar", "-C", layout, "-cf", place, "."], check=True)
    assert home.must("run", f"{form}:{place}") == "laid out\n"
