"""What people may expect of a pod, as a table: one answer for every flavor.

A case is one `podctl run`. Where a flavor says of itself that it cannot do what a case needs
(`needs`), it has to refuse it by name; there is no third way.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NOTHING: Mapping[str, str | None] = MappingProxyType({})


class Case(NamedTuple):
    """One run and its answer.

    Args:
        script: for the shell of the image; "" to run the image as it is.
        pod: flags before the image; `{top}` is the directory that `files` lie in.
        app: flags behind it.
        arguments: of the app, instead of a script.
        image: behind the domain.
        files: path on the host -> content, None for a directory.
        environment: added to the caller's.
        out, err: what is written: text, or a pattern for all of it.
        needs: what the flavor must do for it, in the words of Flavor.lacks.
        otherwise: flavor -> why its answer is another one, where that is documented.
    """

    script: str = ""
    pod: tuple[str, ...] = ()
    app: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    image: str = "box"
    files: Mapping[str, str | None] = NOTHING
    environment: Mapping[str, str] = MappingProxyType({})
    stdin: bytes = b""
    code: int = 0
    out: str | re.Pattern[str] = ""
    err: str | re.Pattern[str] = ""
    needs: str = ""
    otherwise: Mapping[str, str] = MappingProxyType({})


def volume(source: str, target: str, *more: str, kind: str = "host") -> tuple[str, ...]:
    """The flags of one volume."""
    words = [f"v{abs(hash(target)) % 10**8}", f"kind={kind}"]
    words += [f"source={{top}}/{source}"] if kind == "host" else []
    return (
        f"--volume={','.join([*words, *more])}",
        f"--mount=volume={words[0]},target={target}",
    )


def said(text: str) -> re.Pattern[str]:
    """A message of one line, from which this is taken."""
    return re.compile(rf"[^\n]*{re.escape(text)}[^\n]*\n")


#: fly is a chroot: what it lacks of isolation is documented, and needs no flag to be had
_SHARED = {"fly": "processes, devices and the rest of the system are the host's"}
_INPUT = {"fly": "the app is the process that was started, whose standard input it keeps"}

ENVIRONMENT = {
    "what every app has": Case(
        "env | sort",
        out=f"AC_APP_NAME=box\nHOME=/root\nLOGNAME=root\nPATH={PATH}\nPWD=/\nSHELL=/bin/sh\n"
        "SHLVL=1\nUSER=root\nVAR_FROM_MANIFEST=manifest\ncontainer=podctl\n",
    ),
    "nothing of the caller's": Case("echo [$LEAK]", environment={"LEAK": "x"}, out="[]\n"),
    "inherited when asked": Case(
        "echo $SEEN $VAR_FROM_MANIFEST",
        pod=("--inherit-env",),
        environment={"SEEN": "host", "VAR_FROM_MANIFEST": "host"},
        out="host manifest\n",
    ),
    "set-env over the image": Case(
        "echo $VAR_FROM_MANIFEST", pod=("--set-env=VAR_FROM_MANIFEST=set",), out="set\n"
    ),
    "set-env over a file": Case(
        "echo $A $B",
        pod=("--set-env-file={top}/env", "--set-env=B=set"),
        files={"env": "# comment\n; too\n\nA=file\nB=file\n"},
        out="file set\n",
    ),
    "environment over everything": Case(
        "echo $VAR_FROM_MANIFEST",
        pod=("--inherit-env", "--set-env=VAR_FROM_MANIFEST=set"),
        app=("--environment=VAR_FROM_MANIFEST=own",),
        out="own\n",
    ),
    "name of the app": Case("echo $AC_APP_NAME", app=("--name=special",), out="special\n"),
    "values with spaces, quotes and newlines": Case(
        'printf %s "$A"', app=("--environment=A= a'\"b\n$HOME=\\ ",), out=" a'\"b\n$HOME=\\ "
    ),
    "bytes that are no UTF-8": Case(
        "true", app=("--environment=A=\udcff\udcfe",), code=254, err=said("UTF-8")
    ),
    "variables of loaders and supervisors": Case(
        "echo $LISTEN_FDS $NOTIFY_SOCKET $LD_PRELOAD",
        pod=("--set-env=LISTEN_FDS=2", "--set-env=NOTIFY_SOCKET=/x", "--set-env=LD_PRELOAD=/y"),
        out="2 /x /y\n",
    ),
    "a very long variable": Case(
        "echo ${#A}", app=("--environment=A=" + "x" * 100_000,), out="100000\n"
    ),
}

ACCOUNTS = {
    "root by default": Case("id", out="uid=0(root) gid=0(root) groups=0(root)\n"),
    "user by number": Case("id -u; id -g", app=("--user=200",), out="200\n0\n"),
    "user and group by name": Case(
        "id",
        app=("--user=web", "--group=staff"),
        out="uid=1001(web) gid=50(staff) groups=50(staff)\n",
    ),
    "group by number": Case("id -u; id -g", app=("--group=300",), out="0\n300\n"),
    "owner of a file": Case(
        "id -u; id -g", app=("--user=/srv/owned", "--group=/srv/owned"), out="1234\n4321\n"
    ),
    "supplementary groups": Case(
        "id -G", app=("--user=web", "--group=web", "--supplementary-gids=7,50"), out="1002 7 50\n"
    ),
    "the image's own account": Case(
        arguments=("-c", "id -u; id -G; pwd"),
        image="points",
        out="1001\n1002 7 50\n/srv/data\n",
        err=re.compile(r'run: no volume specified for mount point "state"[^\n]*\n'),
    ),
    "unknown user": Case("true", app=("--user=who",), code=254, err=said('user "who"')),
    "unknown group": Case("true", app=("--group=who",), code=254, err=said('group "who"')),
    "owner of no file": Case("true", app=("--user=/no/file",), code=254, err=said("/no/file")),
    "a number that is also a name": Case(
        "grep Uid /proc/self/status",
        image="hostile",
        app=("--user=1001",),
        out="Uid:\t1001\t1001\t1001\t1001\n",
    ),
    "an account with a number too big": Case(
        "true", image="hostile", app=("--user=huge",), code=254, err=said("4294967296")
    ),
    "an account with a negative number": Case(
        "true", image="hostile", app=("--user=minus",), code=254, err=said("-1")
    ),
    "a database that is a pipe": Case(
        "true", image="hostile", app=("--group=web",), code=254, err=said("/etc/group")
    ),
    "no privileges for other users": Case(
        "grep -E '^Cap(Prm|Eff|Inh|Amb)' /proc/self/status",
        app=("--user=web", "--group=web"),
        out="".join(f"Cap{name}:\t0000000000000000\n" for name in ("Inh", "Prm", "Eff", "Amb")),
    ),
}

PROGRAMS = {
    "arguments as they are": Case(
        arguments=(
            "-c",
            'for w; do echo "[$w]"; done',
            "sh",
            "a b",
            "",
            "$X",
            "'\"\\",
            "---x",
            "%s",
            "é",
        ),
        app=("--exec=/bin/sh",),
        out="[a b]\n[]\n[$X]\n['\"\\]\n[---x]\n[%s]\n[é]\n",
    ),
    "a name is looked for in PATH": Case(app=("--exec=basename",), arguments=("/a/b",), out="b\n"),
    "a name in the app's own PATH": Case(
        app=("--exec=script", "--environment=PATH=/programs"), arguments=("x",), out="script x\n"
    ),
    "a relative path from the working directory": Case(
        app=("--exec=./script", "--working-dir=/programs"), arguments=("y",), out="script y\n"
    ),
    "working directory": Case("pwd", app=("--working-dir=/srv/data",), out="/srv/data\n"),
    "a working directory through a link": Case(
        "pwd -P", app=("--working-dir=/srv/absolute",), out="/srv/real\n"
    ),
    "a working directory that is missing": Case(
        "pwd", app=("--working-dir=/no/dir",), code=254, err=said("/no/dir")
    ),
    "a static program and nothing else": Case(image="bare", out="bare\n"),
    "missing program": Case(
        app=("--exec=/no/such",), code=127, err=said("/no/such: no such program in the image")
    ),
    "missing in PATH": Case(app=("--exec=no-such",), code=127, err=said("no such program")),
    "missing interpreter": Case(
        app=("--exec=/programs/no-interpreter",), code=127, err=said("/no/such/interpreter is not")
    ),
    "interpreter with a carriage return": Case(
        app=("--exec=/programs/dos",), code=127, err=said("carriage return")
    ),
    "missing loader": Case(
        app=("--exec=/programs/dynamic",), code=127, err=said("is not in the image")
    ),
    "another machine's program": Case(
        app=("--exec=/programs/foreign",), code=126, err=said("is built for riscv64, this host is")
    ),
    "no execute permission": Case(
        app=("--exec=/programs/not-executable",), code=126, err=said("no execute permission")
    ),
    "a directory": Case(app=("--exec=/programs/directory",), code=126, err=said("is a directory")),
    "an empty file": Case(app=("--exec=/programs/empty",), code=126, err=said("is empty")),
    "neither program nor script": Case(
        app=("--exec=/programs/text",), code=126, err=said("neither an ELF program nor")
    ),
    "a program its user may not execute": Case(
        app=("--exec=/root/program", "--user=web"),
        pod=volume("secret", "/root/program"),
        files={"secret": "#!/bin/sh\n"},
        code=126,
        err=said("/root/program"),
    ),
}

VOLUMES = {
    "of the host": Case(
        "cat /v/file; echo new >/v/new; cat /v/new",
        pod=volume("v", "/v"),
        files={"v/file": "host\n"},
        out="host\nnew\n",
    ),
    "read-only": Case(
        "cat /v/file; echo x >/v/new",
        pod=volume("v", "/v", "readOnly=true"),
        files={"v/file": "host\n"},
        code=1,
        out="host\n",
        err=said("Read-only file system"),
    ),
    "empty": Case(
        "stat -c '%a %u %g' /v; echo x >/v/x; ls /v",
        pod=volume("", "/v", "mode=0701,uid=5,gid=6", kind="empty"),
        out="701 5 6\nx\n",
    ),
    "a file": Case(
        "cat /new/f", pod=volume("f", "/new/f"), files={"f": "content\n"}, out="content\n"
    ),
    "over a file of the image": Case(
        "cat /srv/data/file", pod=volume("f", "/srv/data/file"), files={"f": "mine\n"}, out="mine\n"
    ),
    "one in another, whatever their order": Case(
        "cat /m/a /m/in/b",
        pod=(*volume("inner", "/m/in"), *volume("outer", "/m")),
        files={"outer/a": "outer\n", "outer/in": None, "inner/b": "inner\n"},
        out="outer\ninner\n",
    ),
    "on what a link leads to": Case(
        "cat /srv/real/file; ls -l /srv/link | grep -o 'link.*'",
        pod=volume("v", "/srv/link"),
        files={"v/file": "linked\n"},
        out="linked\nlink -> real\n",
    ),
    "on a link that would lead out": Case(
        "cat /srv/real/file", pod=volume("v", "/srv/far"), files={"v/file": "in\n"}, out="in\n"
    ),
    "parents that are made": Case(
        "stat -c '%a %u' /a /a/b",
        pod=volume("v", "/a/b/c"),
        files={"v": None},
        out="755 0\n755 0\n",
    ),
    "of the image": Case(
        arguments=("-c", "touch /srv/state/x 2>/dev/null || echo read-only"),
        image="points",
        out="read-only\n",
        err=re.compile(r"run: no volume specified[^\n]*\n"),
    ),
    "with a link as its source": Case(
        "cat /v/file",
        pod=volume("link", "/v"),
        files={"v/file": "real\n", "link": "-> v"},
        out="real\n",
    ),
    "whose source is missing": Case(
        "true", pod=volume("missing", "/v"), code=254, err=said("missing")
    ),
    "twice on one target": Case(
        "ls /v; ls /v/",
        pod=(*volume("a", "/v"), *volume("b", "/v/")),
        files={"a/a": "", "b/b": ""},
        out="b\nb\n",
    ),
    "over /proc": Case(
        "true", pod=volume("v", "/proc"), files={"v": None}, code=254, err=said("/proc")
    ),
    "a device": Case(
        "head -c 3 /v | od -An -tx1",
        pod=("--volume=d,kind=host,source=/dev/zero", "--mount=volume=d,target=/v"),
        out=" 00 00 00\n",
    ),
    "no device file in a volume of files": Case(
        "mknod /v/null c 1 3 && echo x >/v/null",
        pod=volume("v", "/v"),
        files={"v": None},
        code=1,
        err=re.compile(r"[^\n]+\n"),
        otherwise=_SHARED,
    ),
    "with odd names": Case(
        "cat '/a:b,c d/f'", pod=volume("x:y", "/a:b"), files={"x:y/f": ""}, code=1, err=said("")
    ),
}

ROOTS = {
    "written, and gone with the pod": Case("echo x >/new; rm /srv/data/file; cat /new", out="x\n"),
    "read-only": Case(
        "for f in /x /tmp/x /etc/x /bin/x; do touch $f 2>/dev/null || echo no; done",
        app=("--readonly-rootfs=true",),
        out="no\n" * 4,
    ),
    "read-only with a volume that is not": Case(
        "touch /v/x && ls /v",
        pod=volume("", "/v", kind="empty"),
        app=("--readonly-rootfs=true",),
        out="x\n",
    ),
    "a copy, without overlay": Case(
        "cat /srv/data/file; echo x >/new; cat /new",
        pod=("--no-overlay",),
        out="from the image\nx\n",
    ),
    "temporary directory": Case("stat -c %a /tmp; touch /tmp/x", app=("--user=web",), out="1777\n"),
    "file mode mask": Case("umask; touch /x; stat -c %a /x", out="0022\n644\n"),
    "mounted file systems": Case(
        "readlink /etc/mtab; grep -c ' / ' /etc/mtab", out="../proc/self/mounts\n1\n"
    ),
    "devices": Case(
        "echo x >/dev/null; head -c 1 /dev/zero /dev/urandom | wc -c; : >/dev/full; "
        "ls -d /dev/shm /dev/pts /dev/fd /dev/stdin",
        out=re.compile(r"\d+\n/dev/fd\n/dev/pts\n/dev/shm\n/dev/stdin\n"),
    ),
    "links among the image's directories": Case(
        "echo x >/tmp/x && cat /srv/tmp/x; test -s /srv/etc/hostname && head -1 /etc/group",
        image="linked",
        out="x\nroot:x:0:\n",
    ),
    "a link for /proc": Case(
        "true",
        image="linked-proc",
        code=254,
        err=said("/proc"),
        otherwise={"fly": "nothing that protects depends on it: it is mounted where that leads"},
    ),
    "a file for /dev": Case("true", image="file-for-dev", code=254, err=said("/dev")),
    "an image with a system of its own": Case(
        "ls /evil; cat /etc/systemd/nspawn/box.nspawn | head -1",
        image="system",
        code=0,
        out="[Exec]\n",
        err=re.compile(r"(ERROR: ld.so[^\n]*\n)?ls: /evil: No such file or directory\n"),
    ),
    "an init as an ordinary app": Case(
        image="system", app=("--exec=/sbin/init",), out=re.compile(r"init of the image as [0-9]+\n")
    ),
}

NAMES = {
    "hostname": Case(
        "hostname; cat /etc/hostname",
        pod=("--hostname=box",),
        out="box\nbox\n",
        needs="option hostname",
    ),
    "a hostname of 64 characters": Case(
        "hostname", pod=("--hostname=" + "h" * 64,), out="h" * 64 + "\n", needs="option hostname"
    ),
    "a hostname that is none": Case(
        "true", pod=("--hostname=a b\nc",), code=254, err=said("hostname"), needs="option hostname"
    ),
    "hosts where the image has none": Case(
        "head -1 /etc/hosts",
        out="127.0.0.1 localhost localhost.domain localhost4 localhost4.localdomain4\n",
    ),
    "hosts given": Case(
        "grep 192.0.2 /etc/hosts",
        pod=("--hosts-entry=192.0.2.1=one", "--hosts-entry=192.0.2.1=two"),
        out="192.0.2.1 one two\n",
    ),
    "resolv.conf given": Case(
        "grep -v '^#' /etc/resolv.conf",
        pod=("--dns=192.0.2.7", "--dns-search=example.com", "--dns-opt=ndots:3"),
        out=re.compile(r"\n?search example.com\nnameserver 192.0.2.7\noptions ndots:3\n"),
    ),
    "resolv.conf of the image, if any": Case(
        "ls /etc/resolv.conf", code=1, err=said("No such file")
    ),
    "resolv.conf as a volume": Case(
        "cat /etc/resolv.conf",
        pod=volume("r", "/etc/resolv.conf"),
        files={"r": "nameserver 192.0.2.9\n"},
        out="nameserver 192.0.2.9\n",
    ),
    "hosts that would add a line": Case(
        "true",
        pod=("--hosts-entry=192.0.2.1=a\nb",),
        code=254,
        err=re.compile(r"[^\n]*cannot stand in resolv.conf or hosts[^\n]*\n"),
    ),
    "no network but its own": Case(
        "ls /sys/class/net; cat /sys/class/net/lo/operstate",
        pod=("--net=none",),
        out="lo\nunknown\n",
        needs="network none",
    ),
    "the host's network": Case(
        "readlink /proc/self/ns/net", pod=("--net=host",), out=re.compile(r"net:\[\d+\]\n")
    ),
}

ENDS = {
    **{f"exit code {n}": Case(f"exit {n}", code=n) for n in (0, 1, 3, 126, 127, 254, 255)},
    **{
        f"ended by {name}": Case(f"kill -{name} $$", code=128 + number)
        for name, number in (
            ("HUP", 1),
            ("INT", 2),
            ("ABRT", 6),
            ("KILL", 9),
            ("SEGV", 11),
            ("TERM", 15),
        )
    },
    "children that outlive it": Case("sleep 600 >/dev/null 2>&1 & exit 5", code=5),
    "output of a child that outlives it": Case(
        "(sleep 0.2; echo late) & exit 4", code=4, out=re.compile(r"(late\n)?")
    ),
}

ISOLATION = {
    "no new privileges": Case(
        "grep NoNewPrivs /proc/self/status",
        out="NoNewPrivs:\t1\n",
        otherwise={"fly": "what an image may run there is left to it, as in rkt"},
    ),
    "it is alone": Case("ls -d /proc/[0-9]* | wc -l", out=re.compile("[1-6]\n"), otherwise=_SHARED),
    "nothing but three descriptors": Case(
        "for f in /proc/$$/fd/*; do readlink $f >/dev/null && echo ${f##*/}; done; true",
        out="0\n1\n2\n",
        otherwise=_SHARED,
    ),
    "event handlers": Case(
        image="handlers",
        code=3,
        out="before of the app as 0\napp\nafter of the app as 0\n",
        needs="option event-handlers",
    ),
    "an event handler that fails": Case(
        image="failing-handler", code=9, needs="option event-handlers"
    ),
    "annotations change nothing": Case(
        "echo ran",
        app=("--annotation=example.com/x=y", "--user-annotation=a=b", "--user-label=c=d"),
        out="ran\n",
    ),
}

LIMITS = {
    "memory": Case(
        "head -c 100000000 /dev/zero | tail -c 100000000 >/dev/null; echo $?",
        app=("--memory=32M",),
        out="137\n",
        err=re.compile(r"(Killed\n)?"),
        needs="isolator resource/memory",
    ),
    "a capability less": Case(
        "chown 1 /srv/data/file",
        app=("--caps-remove=CAP_CHOWN",),
        code=1,
        err=said("Operation not permitted"),
        needs="isolator os/linux/capabilities-remove-set",
    ),
    "capabilities that are kept": Case(
        "grep CapEff /proc/self/status",
        app=("--caps-retain=CAP_CHOWN,CAP_KILL",),
        out="CapEff:\t0000000000000021\n",
        needs="isolator os/linux/capabilities-retain-set",
    ),
    "system calls that are taken away": Case(
        "mkdir /x",
        app=("--seccomp=mode=remove,errno=EACCES,mkdir,mkdirat",),
        code=1,
        err=said("Permission denied"),
        needs="isolator os/linux/seccomp-remove-set",
    ),
    "a score for the killer": Case(
        "cat /proc/self/oom_score_adj",
        app=("--oom-score-adj=500",),
        out="500\n",
        needs="isolator os/linux/oom-score-adj",
    ),
    "a limit that is none": Case("true", app=("--memory=16m",), code=254, err=said("4096")),
}

OUTPUT = {
    "by its name": Case(
        "echo out >/dev/stdout; echo err >/dev/stderr; echo fd >/proc/self/fd/1",
        out="out\nfd\n",
        err="err\n",
    ),
    "by its name, for another user": Case(
        "echo out >/dev/stdout; echo err >/dev/stderr",
        app=("--user=web", "--group=web"),
        out="out\n",
        err="err\n",
    ),
}

INPUT = {
    "none unless interactive": Case(
        "cat; echo end", stdin=b"something\n", out="end\n", otherwise=_INPUT
    ),
    "the caller's when interactive": Case(
        "cat; echo end", pod=("--interactive",), stdin=b"something\n", out="something\nend\n"
    ),
}

TABLE: dict[str, Case] = {
    f"{group}: {name}": case
    for group, cases in (
        ("environment", ENVIRONMENT),
        ("accounts", ACCOUNTS),
        ("programs", PROGRAMS),
        ("volumes", VOLUMES),
        ("roots", ROOTS),
        ("names", NAMES),
        ("ends", ENDS),
        ("isolation", ISOLATION),
        ("limits", LIMITS),
        ("output", OUTPUT),
        ("input", INPUT),
    )
    for name, case in cases.items()
}
