"""What strangers wrote reaches no terminal as it is (X23), and no secret reaches anybody (R15)."""

from __future__ import annotations

import base64
import json
import os
import pty
import subprocess
import termios
from typing import TYPE_CHECKING

import image_files
import pytest
from image_files import ARCH, manifest, pack

from podctl.testing.httpserver import Content, Protected, Reply, redirect

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from home import Home
    from live_world import Discovery
    from site_world import Site

pytestmark = pytest.mark.root

FLY = "--stage1=fly"
#: sets a terminal's title, hides what follows, and can make some terminals type
EVIL = "\x1b]0;owned\x07\x1b[8m\x9b31m\u202egnp.exe\r"
CONTROLS = ("\x1b]0;", "\x1b[8m", "\x9b", "\u202e", "\x07")


def on_a_terminal(command: Sequence[str], typed: bytes = b"") -> tuple[int, str]:
    """Run a command on a terminal of its own; its exit code and everything it wrote."""
    ours, theirs = pty.openpty()
    settings = termios.tcgetattr(theirs)
    settings[1] &= ~termios.OPOST
    settings[3] &= ~termios.ECHO
    termios.tcsetattr(theirs, termios.TCSANOW, settings)
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        env={**os.environ, "TERM": "xterm", "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    os.close(theirs)
    if typed:
        os.write(ours, typed)
    parts = []
    while True:
        try:
            data = os.read(ours, 65536)
        except OSError:
            break
        if not data:
            break
        parts.append(data)
    os.close(ours)
    return process.wait(), b"".join(parts).decode(errors="surrogateescape")


def check_escaped(text: str, *, quoted: bool = True) -> None:
    """No control arrives; what is quoted of the text arrives in letters."""
    assert not [control for control in CONTROLS if control in text], repr(text)
    assert not quoted or "owned" in text, repr(text)


def hostile_label(home: Home, live: Discovery) -> list[list[str]]:
    labels = {"version": f"1{EVIL}", "os": "linux", "arch": ARCH}
    file = home.top / "label.aci"
    document = manifest("live.example/label", labels=labels, app={})
    file.write_bytes(pack(document, image_files.busybox()))
    home.must("fetch", str(file))
    home.must("run", FLY, str(file))
    return [["image", "list"], ["list"], ["list", "--full"]]


def hostile_file_name(home: Home, live: Discovery) -> list[list[str]]:
    return [["fetch", f"{home.top}/absent{EVIL}.aci"], ["run", FLY, f"./{EVIL}.aci"]]


def hostile_arguments(home: Home, live: Discovery) -> list[list[str]]:
    return [
        [f"frobnicate{EVIL}"],
        ["list", f"--{EVIL}"],
        ["status", EVIL],
        ["fetch", f"live.example/{EVIL}"],
        ["image", "rm", f"sha512-{EVIL}"],
        ["run", FLY, f"--volume=v{EVIL},kind=empty"],
        [f"--insecure-options={EVIL}", "list"],
    ]


def hostile_redirect(home: Home, live: Discovery) -> list[list[str]]:
    latin = EVIL.encode("utf-8").decode("latin-1").replace("\r", "")
    live.files["/moved.aci"] = redirect(f"ftp://elsewhere.example/{latin}")
    return [["fetch", "https://live.example/moved.aci"]]


def hostile_tar_entry(home: Home, live: Discovery) -> list[list[str]]:
    file = home.top / "entry.aci"
    document = manifest("live.example/entry", app={})
    file.write_bytes(pack(document, {f"a{EVIL}": b"x", f"a{EVIL}/below": b"x"}))
    return [["fetch", str(file)]]


def hostile_manifest(home: Home, live: Discovery) -> list[list[str]]:
    file = home.top / "manifest.aci"
    document = manifest("live.example/x", app={})
    document["name"] = f"live.example/{EVIL}"
    file.write_bytes(pack(document, {}))
    return [["fetch", str(file)]]


def hostile_program(home: Home, live: Discovery) -> list[list[str]]:
    home.install("live.example/program", app={"exec": [f"/bin/{EVIL}"]})
    return [["run", FLY, "live.example/program"], ["run", FLY, "--dry-run", "live.example/program"]]


def hostile_page(home: Home, live: Discovery) -> list[list[str]]:
    name = "live.example/page"
    live.tags = (("ac-discovery", f"live.example ftp://{EVIL}/{{name}}.{{ext}}"),)
    return [["fetch", name]]


def hostile_configuration(home: Home, live: Discovery) -> list[list[str]]:
    directory = home.local / "auth.d"
    directory.mkdir()
    (directory / f"{EVIL}.json".replace("/", "_")).write_text("{")
    return [["config"]]


STRANGERS = [
    hostile_label,
    hostile_file_name,
    hostile_arguments,
    hostile_redirect,
    hostile_tar_entry,
    hostile_manifest,
    hostile_program,
    hostile_page,
    hostile_configuration,
]


@pytest.mark.parametrize("case", STRANGERS, ids=lambda case: case.__name__)
def test_x23_strangers_do_not_write_to_the_terminal(
    home: Home, live: Discovery, case: Callable[[Home, Discovery], list[list[str]]]
) -> None:
    for words in case(home, live):
        _, text = on_a_terminal(home.line(*words))
        check_escaped(text, quoted=case not in (hostile_redirect, hostile_page))


def test_x23_identities_of_keys_are_escaped_where_trust_is_asked_for(
    home: Home, published: Site, tmp_path: Path
) -> None:
    """The review of a fingerprint is the worst place to be lied to."""
    # gpg makes no user id with ESC in it; these two it lets pass.
    signer = published.keyring.make("owned \u202egnp.exe \x9b31m <evil@example.com>")
    key = published.keyring.export(signer, tmp_path / "key.asc")
    image = published.publish("apps.example/evil")
    published.keyring.sign(signer, image)
    trust = home.line("trust", "--prefix=apps.example/evil", str(key))
    code, text = on_a_terminal(trust, b"yes\n")
    assert code == 0, text
    check_escaped(text)
    home.options.remove("--insecure-options=image")
    code, text = on_a_terminal(home.line("fetch", str(image)))
    assert code == 0, text
    assert "signature verified" in text
    check_escaped(text)


def test_control_the_same_bytes_do_reach_a_terminal_that_nobody_guards(tmp_path: Path) -> None:
    """Control: the terminal of these tests passes everything on."""
    _, text = on_a_terminal(["printf", "%s", EVIL])
    assert all(control in text for control in CONTROLS), repr(text)


def test_json_is_the_same_bytes_on_a_terminal(home: Home, live: Discovery) -> None:
    hostile_label(home, live)
    _, text = on_a_terminal(home.line("list", "--format=json"))
    assert json.loads(text) == json.loads(home.must("list", "--format=json"))


# -- secrets ---------------------------------------------------------------------------------

SECRET = "hunter2-topsecret"
TOKEN = "token-0123456789abcdef"
NAME = "live.example/private"
PATH = f"/{NAME}-latest-linux-{ARCH}.aci"
URL = f"https://live.example{PATH}"


def shapes(secret: str) -> list[str]:
    """A secret as it could leak: plain, and as a header carries it."""
    basic = base64.b64encode(f"bar:{secret}".encode()).decode()
    return [secret, basic, base64.b64encode(secret.encode()).decode()]


def configure(home: Home, document: dict[str, object]) -> None:
    place = home.local / "auth.d"
    place.mkdir(exist_ok=True)
    (place / "auth.json").write_text(
        json.dumps({"rktKind": "auth", "rktVersion": "v1", "domains": ["live.example"], **document})
    )
    (place / "auth.json").chmod(0o600)


BASIC = {"type": "basic", "credentials": {"user": "bar", "password": SECRET}}
OAUTH = {"type": "oauth", "credentials": {"token": TOKEN}}
#: what the server answers -> the route
ANSWERS: dict[str, Callable[[bytes], object]] = {
    "good": lambda data: Content(data),
    "401": lambda data: Protected("Basic other", Content(data)),
    "403": lambda data: Reply(403),
    "redirect": lambda data: redirect("https://other.example/app.aci"),
    "downgrade": lambda data: redirect("http://live.example/app.aci"),
    "no archive": lambda data: Content(b"no archive"),
    "cut off": lambda data: Reply(200, body=data[: len(data) // 2]),
    "echo": lambda data: (
        lambda request: Reply(404, {"X-Echo": str(request.headers)}, str(request.headers).encode())
    ),
}


def check_secret(home: Home, secret: str, *texts: str) -> None:
    for shape in shapes(secret):
        for text in texts:
            assert shape not in text, text
        for path in home.data.rglob("*"):
            assert shape not in str(path)
            if path.is_file():
                assert shape.encode() not in path.read_bytes(), path


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("kind", ["basic", "oauth"])
def test_r15_credentials_are_never_shown(
    home: Home, live: Discovery, answer: str, kind: str
) -> None:
    configure(home, BASIC if kind == "basic" else OAUTH)
    data = pack(manifest(NAME, app={}), image_files.busybox())
    live.files[PATH] = ANSWERS[answer](data)  # type: ignore[assignment]
    for words in (["fetch", NAME], ["--debug", "fetch", URL], ["--debug", "run", FLY, NAME]):
        done = home.podctl(*words)
        check_secret(home, SECRET if kind == "basic" else TOKEN, done.stdout, done.stderr)
    if answer == "good":
        assert done.returncode == 0


def test_r15_credentials_are_in_no_command_line(home: Home, live: Discovery) -> None:
    """While it downloads, /proc shows arguments and environment to others."""
    import threading
    from pathlib import Path as Place

    configure(home, BASIC)
    asked, release = threading.Event(), threading.Event()

    def hang(request: object) -> Reply:
        asked.set()
        return Reply(200, body=b"x", hold=release)

    live.files[PATH] = hang
    fetch = home.start("fetch", URL, stdout=-1, stderr=-1)
    try:
        assert asked.wait(30)
        shown = ""
        for process in Place("/proc").glob("[0-9]*"):
            try:
                line = (process / "cmdline").read_text()
                if PATH in line or str(home.data) in line:
                    shown += (
                        line + (process / "environ").read_text() + (process / "comm").read_text()
                    )
            except OSError:
                continue
        assert PATH in shown
        assert not [shape for shape in shapes(SECRET) if shape in shown]
    finally:
        release.set()
        fetch.communicate()


def test_r15_a_password_in_a_url_is_hidden(home: Home, live: Discovery) -> None:
    data = pack(manifest(NAME, app={}), image_files.busybox())
    url = f"https://bar:{SECRET}@live.example{PATH}"
    for route in (Reply(403), Content(b"no archive"), Content(data)):
        live.files[PATH] = route
        for words in (["fetch", url], ["--debug", "run", FLY, url], ["image", "list"]):
            done = home.podctl(*words)
            check_secret(home, SECRET, done.stdout, done.stderr)


def test_r15_a_password_in_a_proxy_is_hidden(home: Home, live: Discovery) -> None:
    environment = {**os.environ, "https_proxy": f"http://bar:{SECRET}@127.0.0.1:9"}
    for words in (["fetch", URL], ["--debug", "fetch", NAME]):
        done = home.podctl(*words, env=environment)
        assert done.returncode == 254
        check_secret(home, SECRET, done.stdout, done.stderr)


def test_r15_a_file_everybody_may_read_is_warned_of(home: Home, live: Discovery) -> None:
    configure(home, BASIC)
    (home.local / "auth.d/auth.json").chmod(0o644)
    live.files[PATH] = Content(pack(manifest(NAME, app={}), image_files.busybox()))
    done = home.podctl("fetch", URL)
    assert "auth.json" in done.stderr
    check_secret(home, SECRET, done.stderr)
