"""Plugins that misbehave in every way we know: each is named and contained (catalogue row L17).

Every mutant is a complete distribution; `good` is the control that the way it is installed works.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from podctl.errors import PluginBroken, PluginError, PluginMissing, Refused
from podctl.model.plan import FlavorDescription, PreparedPod
from podctl.plugins import discovery, installed, loading
from podctl.plugins.families import STAGE1, TRUST
from podctl.plugins.handles import FlavorHandle, TrustHandle
from podctl.plugins.probe import probe

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Install = Callable[..., Path]

HEAD = """
from __future__ import annotations
from podctl.api import hookimpl
from podctl.model.plan import FlavorDescription

DESCRIPTION = FlavorDescription("good", 1, ("host",), frozenset(), frozenset())
"""

GOOD = (
    HEAD
    + """
class Good:
    @hookimpl
    def stage1_describe(self):
        return DESCRIPTION

    @hookimpl
    def stage1_check_host(self):
        return ["no such device"]

    @hookimpl
    def stage1_prepare(self, pod):
        from podctl.errors import Refused
        raise Refused("not today", hint="tomorrow")

flavor = Good()
"""
)


def hooks(*methods: str) -> str:
    body = "\n".join(f"    @hookimpl\n    def {method}" for method in methods)
    return f"{HEAD}\nclass Mutant:\n{body}\n\nflavor = Mutant()\n"


DESCRIBE = "stage1_describe(self): return DESCRIPTION"

# name -> (source, what is said of it)
LOAD_MUTANTS = {
    "import-error": ("import no_such_module", "ModuleNotFoundError"),
    "syntax-error": ("def (", "SyntaxError"),
    "raises": ("raise ValueError('broken\\nby design')", "ValueError: broken by design"),
    "raises-base": ("class Odd(BaseException): pass\nraise Odd('x')", "Odd"),
    "exits": ("import sys; sys.exit(0)", "tried to exit with 0"),
    "exits-with-text": ("raise SystemExit('bye')", "tried to exit"),
    "no-attribute": ("", "AttributeError"),
    "recursion": ("def f(): f()\nf()", "RecursionError"),
    "memory": ("x = bytearray(1 << 62)", "MemoryError"),
    "a-class": (hooks(DESCRIBE) + "flavor = Mutant", "is a class"),
    "no-hook": ("flavor = object()", "implements no hook"),
    "none": ("flavor = None", "implements no hook"),
    "unknown-hook": (hooks(DESCRIBE, "stage1_explode(self): pass"), "stage1_explode"),
    "wrong-argument": (hooks("stage1_plan(self, bod): pass"), "bod"),
    "too-many-arguments": (hooks("stage1_describe(self, pod): pass"), "pod"),
    "hangs": ("while True: pass", "not done after"),
    "sleeps": ("import time\ntime.sleep(600)", "not done after"),
    "hangs-stubbornly": (
        "import itertools\n"
        "for n in itertools.count():\n"
        "    try:\n"
        "        while n < 1: pass\n"
        "        raise SystemExit(n)\n"
        "    except Exception: pass\n",
        "not done after",
    ),
}


def find(install: Install, source: str, group: str = "podctl.stage1") -> FlavorHandle | TrustHandle:
    install("acme-mutant", {group: {"mutant": "acme_mutant:flavor"}}, {"acme_mutant": source})
    family = STAGE1 if group == STAGE1.group else TRUST
    provider = discovery.Installed(installed.scan(), indexed=False).find(family, "mutant")
    manager = loading.load(provider, indexed=True, limit=0.3)
    return (FlavorHandle if family is STAGE1 else TrustHandle)(provider, manager)


def blames(error: pytest.ExceptionInfo[PluginBroken]) -> bool:
    text = str(error.value)
    named = all(part in text for part in ("acme-mutant", "1.0", "acme_mutant:flavor", "mutant"))
    return named and "\n" not in text


@pytest.mark.parametrize("indexed", [True, False], ids=["import", "stevedore"])
def test_a_good_plugin_loads_and_answers(install: Install, indexed: bool) -> None:
    install("acme-good", {"podctl.stage1": {"good": "acme_good:flavor"}}, {"acme_good": GOOD})
    provider = discovery.Installed(installed.scan(), indexed=False).find(STAGE1, "good")
    flavor = FlavorHandle(provider, loading.load(provider, indexed=indexed))
    assert flavor.describe() == FlavorDescription("good", 1, ("host",), frozenset(), frozenset())
    assert flavor.check_host() == ("no such device",)
    with pytest.raises(Refused, match="not today"):
        flavor.prepare(PreparedPod("u", "/d", ()))


@pytest.mark.parametrize("name", LOAD_MUTANTS)
def test_a_plugin_that_cannot_be_loaded_is_named(install: Install, name: str) -> None:
    source, complaint = LOAD_MUTANTS[name]
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(PluginBroken, match=complaint) as caught:
        find(install, source)
    assert blames(caught)
    assert caught.value.__cause__ is not None
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGALRM) is before


@pytest.mark.parametrize("name", ["import-error", "raises", "exits", "syntax-error"])
def test_the_same_is_said_when_stevedore_loads(install: Install, name: str) -> None:
    source, complaint = LOAD_MUTANTS[name]
    install("acme-mutant", {"podctl.stage1": {"m": "acme_mutant:flavor"}}, {"acme_mutant": source})
    provider = discovery.Installed(installed.scan(), indexed=False).find(STAGE1, "m")
    with pytest.raises(PluginBroken, match=complaint) as caught:
        loading.load(provider, indexed=False)
    assert "acme-mutant" in str(caught.value)


@pytest.mark.parametrize(
    ("method", "complaint"),
    [
        ("stage1_describe(self): return None", "returned NoneType from stage1_describe"),
        ("stage1_describe(self): return {'name': 'x'}", "returned dict"),
        ("stage1_describe(self): raise KeyError('k')", "failed in stage1_describe: KeyError"),
        ("stage1_describe(self): raise SystemExit(3)", "tried to exit with 3"),
        ("stage1_describe(self): raise OSError(5, 'I/O')", "failed in stage1_describe: OSError"),
        ("stage1_gc(self, pod): pass", "does not implement stage1_describe"),
    ],
)
def test_a_hook_that_fails_is_named(install: Install, method: str, complaint: str) -> None:
    flavor = find(install, hooks(method))
    assert isinstance(flavor, FlavorHandle)
    with pytest.raises(PluginBroken, match=complaint) as caught:
        flavor.describe()
    assert blames(caught)


@pytest.mark.parametrize("answer", ["'one line'", "7", "[b'bytes']", "[None]", "iter(())"])
def test_a_list_of_the_wrong_things_is_refused(install: Install, answer: str) -> None:
    flavor = find(install, hooks(f"stage1_check_host(self): return {answer}"))
    assert isinstance(flavor, FlavorHandle)
    with pytest.raises(PluginBroken, match="stage1_check_host") as caught:
        flavor.check_host()
    assert blames(caught)


def test_hooks_a_plugin_may_leave_out_do_nothing(install: Install) -> None:
    flavor = find(install, hooks(DESCRIBE))
    assert isinstance(flavor, FlavorHandle)
    pod = PreparedPod("u", "/d", ())
    assert flavor.check_host() == ()
    flavor.prepare(pod)
    flavor.gc(pod)
    with pytest.raises(PluginBroken, match="does not implement stage1_stop"):
        flavor.stop(pod, force=False)


def test_an_interrupt_is_not_the_plugins_fault(install: Install) -> None:
    with pytest.raises(KeyboardInterrupt):
        find(install, "raise KeyboardInterrupt")


def test_prints_do_not_reach_stdout(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    method = "stage1_check_host(self):\n        print('called')\n        return []"
    flavor = find(
        install,
        "print('imported')\n" + hooks(method).replace("from __future__ import annotations", ""),
    )
    assert isinstance(flavor, FlavorHandle)
    flavor.check_host()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "imported\ncalled\n"


@pytest.mark.parametrize(
    ("verifier", "complaint"),
    [
        ("None", "returned NoneType from trust_verifier"),
        ("object()", "instead of a Verifier"),
        ("type('V', (), {'update': lambda s, d: 1/0, 'finish': None})()", "instead of a Verifier"),
        ("type('V', (), {'update': lambda s, d: 1/0, 'finish': lambda s: 1})()", "ZeroDivision"),
        ("type('V', (), {'update': lambda s, d: 1, 'finish': lambda s: True})()", "returned bool"),
    ],
)
def test_a_verifier_that_misbehaves_never_verifies(
    install: Install, verifier: str, complaint: str
) -> None:
    source = hooks(f"trust_verifier(self, signature, keys, now): return {verifier}")
    scheme = find(install, source, "podctl.trust")
    assert isinstance(scheme, TrustHandle)
    with pytest.raises(PluginBroken, match=complaint) as caught:
        check = scheme.verifier(b"signature", [b"key"], 0)
        check.update(b"data")
        check.finish()
    assert blames(caught)


def test_loading_works_outside_the_main_thread(install: Install) -> None:
    handles: list[object] = []
    thread = threading.Thread(target=lambda: handles.append(find(install, GOOD)))
    thread.start()
    thread.join()
    assert len(handles) == 1


PROBE_MUTANTS = {
    **{
        name: LOAD_MUTANTS[name]
        for name in ("import-error", "exits", "raises-base", "unknown-hook", "no-hook", "a-class")
    },
    "ends-the-process": ("import os; os._exit(0)", "ended the process"),
    "kills-itself": ("import os; os.kill(os.getpid(), 9)", "ended the process"),
    "hangs-for-good": (
        "import signal\nsignal.pthread_sigmask(0, [14])\nwhile True: pass",
        "within",
    ),
    "wrong-answer": (hooks("stage1_describe(self): return 'x'"), "returned str"),
    "writes-to-stdout": ("import os\nos.write(1, b'noise')\n1/0", "ZeroDivisionError"),
}


def test_every_mutant_gets_its_line_and_harms_no_other(
    install: Install, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, (source, _) in PROBE_MUTANTS.items():
        module = name.replace("-", "_")
        install(f"acme-{name}", {"podctl.stage1": {name: f"{module}:flavor"}}, {module: source})
    install("acme-good", {"podctl.stage1": {"good": "acme_good:flavor"}}, {"acme_good": GOOD})
    install("acme-rival", {"podctl.stage1": {"contested": "a:b"}})
    install("acme-thief", {"podctl.stage1": {"contested": "c:d"}})
    found = discovery.Installed(installed.scan(), indexed=True)
    mine = [p for p in found.providers if p.distribution.startswith("acme-")]
    states = probe(discovery.Installed(mine, indexed=True), limit=3.0)
    by_name = {state.provider.name: state for state in states}
    for name, (_, complaint) in PROBE_MUTANTS.items():
        assert by_name[name].state == "broken"
        assert complaint in by_name[name].reason
        assert "\n" not in by_name[name].reason
    assert by_name["good"][1:] == ("ok", "", ("no such device",))
    contested = [state for state in states if state.provider.name == "contested"]
    assert [state.state for state in contested] == ["conflict", "conflict"]
    assert "acme-rival" in contested[0].reason
    assert "acme-thief" in contested[0].reason
    assert capfd.readouterr().out == ""
    assert not {"acme_good", "import_error"} & set(sys.modules)


def test_what_a_plugin_starts_at_import_does_not_outlive_the_listing(
    install: Install, tmp_path: Path
) -> None:
    source = (
        "import os, threading, time\n"
        "threading.Thread(target=time.sleep, args=(600,), daemon=False).start()\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    time.sleep(600)\n"
        "    os._exit(0)\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(pid))\n"
    )
    install(
        "acme-fork",
        {"podctl.stage1": {"fork": "acme_fork:flavor"}},
        {"acme_fork": source + GOOD.replace("from __future__ import annotations", "")},
    )
    found = discovery.Installed(installed.scan(), indexed=True).find(STAGE1, "fork")
    (state,) = probe(discovery.Installed([found], indexed=True), limit=10.0)
    assert state.state == "ok"
    pid = int((tmp_path / "pid").read_text())
    assert ended(pid)


def ended(pid: int) -> bool:
    """Whether a process that was killed is gone, or goes before long."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([fd], [], [], 30)[0])
    finally:
        os.close(fd)


def test_a_broken_plugin_does_not_stop_its_neighbours(install: Install) -> None:
    install("acme-bad", {"podctl.stage1": {"bad": "acme_bad:flavor"}}, {"acme_bad": "1/0"})
    install("acme-good", {"podctl.stage1": {"good": "acme_good:flavor"}}, {"acme_good": GOOD})
    found = discovery.Installed(installed.scan(), indexed=False)
    with pytest.raises(PluginError):
        loading.load(found.find(STAGE1, "bad"), indexed=False)
    assert loading.load(found.find(STAGE1, "good"), indexed=False)


def test_the_front_door_loads_by_name(
    install: Install, index_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from podctl import plugins

    monkeypatch.setattr(plugins, "_snapshot", None)
    install("acme-good", {"podctl.stage1": {"good": "acme_good:flavor"}}, {"acme_good": GOOD})
    assert plugins.flavor("good").provider.distribution == "acme-good"
    with pytest.raises(PluginMissing, match="install podctl-stage1-bad"):
        plugins.flavor("bad")
    with pytest.raises(PluginMissing, match="install podctl-fetch-carrier"):
        plugins.transport("carrier")
    with pytest.raises(PluginMissing, match="install podctl-fetch-rolled"):
        plugins.image_format("rolled")
    with pytest.raises(PluginMissing, match="install podctl-trust-handshake"):
        plugins.trust_scheme("handshake")
    assert os.listdir(index_directory)
