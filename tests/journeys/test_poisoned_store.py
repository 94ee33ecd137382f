"""A member of the group puts something else in place of everything a member can write.

Whatever it is, root's next run prints what the signed image prints, or refuses; it follows no link
out of the store, waits for no FIFO, writes to nobody's file. (K18, S2 of the hostile-input
catalogue.)
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import image_files
import pytest
from home import fingerprint
from image_files import ARCH, File, Link, manifest, pack
from prey import DIRECTORIES, DIRECTORY_KINDS, FILE_KINDS, Prey

if TYPE_CHECKING:
    from collections.abc import Iterator

    from home import Done
    from site_world import Site

    from podctl.testing.httpserver import Server

pytestmark = pytest.mark.root

NAME = "apps.example/poisoned"
GENUINE = "genuine\n"

FILES = {
    "blob": "cas/blobs/sha256/*/*",
    "record": "cas/images/*/record.json",
    "manifest": "cas/images/*/manifest",
    "signature": "cas/images/*/signature",
    "remote": "cas/remotes/*",
}
CASES = [(what, kind) for what in FILES for kind in FILE_KINDS]
CASES += [(what, kind) for what in DIRECTORIES for kind in DIRECTORY_KINDS]


@pytest.fixture(scope="module")
def prey(published: Site, live_server: Server) -> Iterator[Prey]:
    prey = Prey(published)
    try:
        prey.make_people()
        image = published.publish(NAME, app={"exec": ["/bin/echo", GENUINE.strip()]})
        signer = published.keyring.make("prey <prey@example.com>")
        published.keyring.sign(signer, image)
        key = published.keyring.export(signer, prey.top / "key.asc")
        prey.must("trust", "--prefix", NAME, "--skip-fingerprint-review", str(key))
        yield prey
    finally:
        prey.close()


@pytest.fixture(scope="module")
def fresh(prey: Prey) -> Path:
    """As the member's fetch left it: root has not used it yet."""
    done = prey.by("member", "fetch", NAME)
    assert done.returncode == 0, done
    subprocess.run(["cp", "-a", str(prey.data), str(prey.top / "fresh")], check=True)
    return prey.top / "fresh"


@pytest.fixture(scope="module")
def used(prey: Prey, fresh: Path) -> Path:
    """The same after root's first run."""
    prey.put(fresh)
    assert prey.must("run", "--stage1=fly", NAME) == GENUINE
    subprocess.run(["cp", "-a", str(prey.data), str(prey.top / "used")], check=True)
    return prey.top / "used"


@pytest.fixture
def canaries(prey: Prey) -> Iterator[None]:
    before = fingerprint(prey.canaries)
    yield
    assert fingerprint(prey.canaries) == before


def run(prey: Prey, *more: str) -> Done:
    """Root's run, without network, which must not hang."""
    return prey.by("root", "run", "--stage1=fly", *more, NAME, timeout=30)


def check(prey: Prey, done: Done) -> None:
    """Genuine or refused."""
    if done.returncode == 0:
        assert done.stdout == GENUINE, done
    else:
        assert done.returncode == 254, done
        assert done.stdout == "", done
        assert "unexpected" not in done.stderr, done


def check_aftermath(prey: Prey) -> None:
    """Everyday commands live with it, repair ends, and then the image can be got and run."""
    for words in (["list"], ["image", "list"], ["fsck"], ["gc"], ["image", "gc"]):
        for who in ("member", "root"):
            done = prey.by(who, *words, timeout=30)
            assert done.returncode in (0, 254), (who, done)
            assert "unexpected" not in done.stderr, (who, done)
    prey.by("root", "fsck", "--repair", timeout=60)
    again = prey.by("root", "fetch", NAME)
    assert again.returncode == 0, again
    ran = run(prey)
    assert (ran.returncode, ran.stdout) == (0, GENUINE), ran


#: Every kind of thing and every kind of change, the aftermath looked at of each sixth.
THOROUGH = set(CASES[::6])


@pytest.mark.parametrize(("what", "kind"), CASES, ids=lambda word: word.replace(" ", "-"))
def test_k18_before_roots_first_use(
    prey: Prey, fresh: Path, canaries: None, what: str, kind: str
) -> None:
    prey.put(fresh)
    prey.poison(kind, prey.only((FILES | DIRECTORIES)[what]))
    done = run(prey, "--pull-policy=never")
    check(prey, done)
    if what in ("blob", "signature"):
        # Nothing genuine is left that could have run.
        assert done.returncode == 254, done
    if (what, kind) in THOROUGH:
        check_aftermath(prey)


@pytest.mark.parametrize(("what", "kind"), CASES, ids=lambda word: word.replace(" ", "-"))
def test_k18_after_root_has_used_it(
    prey: Prey, used: Path, canaries: None, what: str, kind: str
) -> None:
    prey.put(used)
    prey.poison(kind, prey.only((FILES | DIRECTORIES)[what]))
    check(prey, run(prey, "--pull-policy=never"))


@pytest.mark.parametrize("kind", ["link", "huge"])
def test_control_a_careless_writer_would_be_led_astray(prey: Prey, fresh: Path, kind: str) -> None:
    """Control: the same poison, met by code that trusts names, reaches the canary or the disk."""
    prey.put(fresh)
    record = prey.only(FILES["record"])
    prey.poison(kind, record)
    before = fingerprint(prey.canaries)
    canary = (prey.canaries / "file").read_bytes()
    assert (record.stat().st_size > 1 << 30) == (kind == "huge")
    record.write_bytes(b"{}")
    assert (fingerprint(prey.canaries) != before) == (kind == "link")
    (prey.canaries / "file").write_bytes(canary)


PARTIAL_KINDS = ["own file", "link", "link to nowhere", "hard link", "fifo", "directory"]


@pytest.mark.parametrize("kind", PARTIAL_KINDS)
def test_k18_a_planted_partial_download(
    prey: Prey, published: Site, fresh: Path, canaries: None, kind: str
) -> None:
    """Root neither continues nor overwrites what lies where its download will."""
    prey.put(fresh)
    prey.must("image", "rm", NAME)
    image = published.public / f"{NAME}-1-linux-{ARCH}.aci"
    url = f"https://apps.example/{NAME}-latest-linux-{ARCH}.aci"
    place = prey.data / f"cas/tmp/{hashlib.sha256(url.encode()).hexdigest()}"
    part = place.with_suffix(".part")
    member = prey.as_user("member", "sh", "-euc")
    status = image.stat()
    etag = f'"{status.st_mtime_ns:x}-{status.st_size:x}"'
    if kind == "hard link":
        # As where fs.protected_hardlinks is off.
        os.link(prey.canaries / "file", part)
    else:
        target = prey.canaries / ("file" if kind == "link" else "new")
        script = {
            "own file": f"head -c 1000 /dev/urandom > {part}; chmod 666 {part}",
            "fifo": f"mkfifo {part}",
            "directory": f"mkdir {part}",
        }.get(kind, f"ln -s {target} {part}")
        subprocess.run([*member, script], check=True)
    state = json.dumps([etag, None])
    subprocess.run([*member, f"echo '{state}' > {place}.state"], check=True)
    done = prey.by("root", "run", "--stage1=fly", NAME, timeout=30)
    assert (done.returncode, done.stdout) == (0, GENUINE), done
    assert fingerprint(part) == fingerprint(prey.top / "nothing")


def test_k18_hard_links_to_roots_files_in_place_of_everything(
    prey: Prey, fresh: Path, canaries: None
) -> None:
    """As where fs.protected_hardlinks is off: nothing is written through them."""
    for pattern in FILES.values():
        prey.put(fresh)
        for path in prey.data.glob(pattern):
            path.unlink()
            os.link(prey.canaries / "file", path)
        check(prey, run(prey, "--pull-policy=never"))
        check_aftermath(prey)
    prey.put(fresh)


def signed_by_another(prey: Prey, published: Site) -> str:
    """The ID of an image that is well signed, for another name."""
    other = "apps.example/elsewhere"
    image = published.publish(other, app={"exec": ["/bin/echo", "elsewhere"]})
    signer = published.keyring.make("other <other@example.com>")
    published.keyring.sign(signer, image)
    key = published.keyring.export(signer, prey.top / "other.asc")
    prey.must("trust", "--prefix", other, "--skip-fingerprint-review", str(key))
    done = prey.by("member", "fetch", "--full", other)
    assert done.returncode == 0, done
    return done.stdout.strip()


def test_k18_a_record_that_gives_an_image_another_name(
    prey: Prey, published: Site, fresh: Path
) -> None:
    """A member cannot make one well signed image pass for another."""
    prey.put(fresh)
    key = signed_by_another(prey, published)
    record = prey.data / f"cas/images/{key}/record.json"
    document = json.loads(record.read_text())
    assert document["name"] == "apps.example/elsewhere"
    document["name"], document["latest"] = NAME, True
    document["imported_at"] += 1000
    script = f"cat > {record}"
    subprocess.run(
        prey.as_user("member", "sh", "-c", script), input=json.dumps(document).encode(), check=True
    )
    done = run(prey, "--pull-policy=never")
    check(prey, done)
    # The same once root knows the other image by its own name.
    prey.put(fresh)
    key = prey.by("member", "fetch", "--full", "apps.example/elsewhere").stdout.strip()
    assert prey.must("run", "--stage1=fly", "apps.example/elsewhere") == "elsewhere\n"
    subprocess.run(
        prey.as_user("member", "sh", "-c", script), input=json.dumps(document).encode(), check=True
    )
    check(prey, run(prey, "--pull-policy=never"))
    by_key = prey.by("root", "run", "--stage1=fly", key)
    assert by_key.returncode == 254 or by_key.stdout == "elsewhere\n", by_key


def test_k18_a_whole_image_exchanged_under_its_key(
    prey: Prey, published: Site, fresh: Path
) -> None:
    """Bytes, manifest and signature of another well signed image below this image's key."""
    prey.put(fresh)
    mine = prey.only("cas/images/*").name
    other = signed_by_another(prey, published)
    images = prey.data / "cas/images"
    script = f"mv {images}/{mine} {images}/away; cp -r {images}/{other} {images}/{mine}"
    subprocess.run(prey.as_user("member", "sh", "-euc", script), check=True)
    done = run(prey, "--pull-policy=never")
    check(prey, done)
    assert "elsewhere" not in done.stdout
    by_key = prey.by("root", "run", "--stage1=fly", mine)
    assert by_key.returncode == 254, by_key
    check_aftermath(prey)


def test_s2_a_members_fetch_plants_nothing_that_has_powers(prey: Prey, fresh: Path) -> None:
    """Set-user-id files and links to secrets stay bytes in an archive until root lets them in."""
    files = image_files.busybox()
    files |= {
        "bin/rootshell": File(Path("/bin/busybox").read_bytes(), 0o4755),
        "shadow": Link("/etc/shadow"),
    }
    evil = prey.top / "evil.aci"
    evil.write_bytes(pack(manifest("apps.example/evil", app={}), files))
    evil.chmod(0o644)
    prey.put(fresh)
    done = prey.by("member", "--insecure-options=image", "fetch", str(evil))
    assert done.returncode == 0, done
    for path in prey.data.rglob("*"):
        assert not path.is_symlink(), path
        if path.is_file():
            assert not path.stat().st_mode & 0o6111, path
    assert list((prey.data / "layers").iterdir()) == []
    refused = prey.by("root", "run", "--stage1=fly", "apps.example/evil")
    assert refused.returncode == 254
    assert list((prey.data / "layers").iterdir()) == []
