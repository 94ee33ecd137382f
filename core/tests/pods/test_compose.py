"""From flags and images to a pod manifest that leaves nothing open."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from podctl.cli.imageargs import parse_images
from podctl.errors import InvalidInput, Refused, UsageError
from podctl.model.image import Image
from podctl.model.manifest import App, MountPoint, Port
from podctl.model.plan import LOGIN_VARIABLES, RootFilesystem
from podctl.model.podmanifest import PodManifest, RuntimeApp, parse_pod_manifest
from podctl.model.ports import port_from_text
from podctl.model.volumes import Mount, Volume
from podctl.pods.compose import PodImage, PodSettings, Requested, complete_given, compose
from podctl.pods.environment import DEFAULTS, EnvironmentSettings, effective, merge
from podctl.pods.prepared import RunSettings, assemble

if TYPE_CHECKING:
    from podctl.model.plan import PreparedApp
    from podctl.store import ImageRecord

KEY = "sha512-" + "a" * 64


class Record:
    """What compose needs of a store's record."""

    key = KEY


def image(app: App | None = None, **changes: Any) -> PodImage:
    fields: dict[str, Any] = {
        "format": "aci",
        "name": "example.com/My_app",
        "labels": {"version": "1", "os": "linux", "arch": "amd64"},
        "app": app,
        "dependencies": (),
        "path_whitelist": (),
        "annotations": {},
        "manifest": b"{}",
        **changes,
    }
    name = fields["name"].lower().replace("_", "-")
    record: ImageRecord = Record()  # type: ignore[assignment]
    return PodImage(record, Image(**{**fields, "name": name}))


def app(**fields: Any) -> App:
    return App(**{"exec": ("/bin/app",), **fields})


def build(
    command_line: str,
    *images: PodImage,
    environment: EnvironmentSettings | None = None,
    ports: str = "",
    said: list[str] | None = None,
) -> PodManifest:
    """Compose what a command line says, with an image for each it names."""
    parsed = parse_images(command_line.split(), {})
    requested = [
        Requested(one.settings, one.arguments, found)
        for one, found in zip(parsed.images, images, strict=True)
    ]
    settings = PodSettings(
        environment or EnvironmentSettings({}, {}, {}),
        parsed.volumes,
        parsed.mounts,
        tuple(port_from_text(text) for text in ports.split()),
    )
    lines: list[str] = [] if said is None else said
    return compose(requested, settings, lines.append)


def prepared(manifest: PodManifest, name: str = "my-app") -> PreparedApp:
    roots = {one.name: RootFilesystem(("/lower",)) for one in manifest.apps}
    pod = assemble("u", "/data/pods/run/u", manifest, RunSettings(), roots)
    return next(one for one in pod.apps if one.name == name)


def mounts(manifest: PodManifest, name: str = "my-app") -> dict[str, tuple[str, bool, bool]]:
    """target -> (source, read only, recursive)"""
    return {
        bind.target: (bind.source, bind.read_only, bind.recursive)
        for bind in prepared(manifest, name).mounts
    }


class TestApps:
    def test_name_comes_from_the_image_and_can_be_given(self) -> None:
        found = image(app())
        assert build("X", found).apps[0].name == "my-app"
        assert build("X --name=other", found).apps[0].name == "other"

    def test_two_apps_of_one_name(self) -> None:
        found = image(app())
        with pytest.raises(UsageError, match="multiple apps with name my-app"):
            build("X Y", found, found)
        assert [one.name for one in build("X Y --name=b", found, found).apps] == ["my-app", "b"]

    @pytest.mark.parametrize(
        ("line", "argv"),
        [
            ("X", ("/bin/app", "-v")),
            ("X -- a --b", ("/bin/app", "-v", "a", "--b")),
            ("X --exec=/bin/sh", ("/bin/sh",)),
            ("X --exec=/bin/sh -- -c true", ("/bin/sh", "-c", "true")),
        ],
    )
    def test_arguments_follow_the_program(self, line: str, argv: tuple[str, ...]) -> None:
        manifest = build(line, image(app(exec=("/bin/app", "-v"))))
        assert manifest.apps[0].app is not None
        assert manifest.apps[0].app.exec == argv

    def test_image_without_app_section(self) -> None:
        with pytest.raises(UsageError, match="has no app section"):
            build("X", image(None))
        section = build("X --exec=/bin/sh", image(None)).apps[0].app
        assert section is not None
        assert (section.exec, section.user, section.group) == (("/bin/sh",), "0", "0")

    def test_empty_exec(self) -> None:
        with pytest.raises(UsageError, match=r'has an empty "exec" \(try --exec=BINARY\)'):
            build("X", image(App(exec=())))
        with pytest.raises(UsageError, match="empty"):
            build("X -- argument", image(App(exec=())))

    def test_flags_replace_what_the_image_says(self) -> None:
        found = image(app(user="400", group="500", supplementary_gids=(1,), working_directory="/a"))
        line = "X --user=u --group=g --supplementary-gids=7,8 --working-dir=/b --readonly-rootfs"
        runtime = build(line, found).apps[0]
        assert runtime.app is not None
        assert runtime.app[1:4] == ("u", "g", (7, 8))
        assert runtime.app.working_directory == "/b"
        assert runtime.read_only_root_fs

    def test_memory_replaces_the_images(self) -> None:
        """Last of a kind wins; appended to the image's it would not (rkt did that)."""
        from podctl.model.isolators import make_isolator

        own = make_isolator("resource/memory", {"limit": "1G"})
        section = build("X --memory=42Mi", image(app(isolators=(own,)))).apps[0].app
        assert section is not None
        assert [(one.name, one.value) for one in section.isolators] == [
            ("resource/memory", {"limit": "42Mi"})
        ]

    @pytest.mark.parametrize(
        "labels",
        [
            {"version": "1"},
            {"os": "linux"},
            {"os": "freebsd", "arch": "amd64"},
            {"os": "linux", "arch": "armv5l"},
        ],
    )
    def test_image_for_another_system_is_refused(self, labels: dict[str, str]) -> None:
        with pytest.raises(Refused):
            build("X", image(app(), labels=labels))

    def test_manifest_survives_the_disk(self) -> None:
        line = "--volume=v,kind=empty X --mount=volume=v,target=/m --user-label=a=b --cpu=500m"
        manifest = build(line, image(app(ports=(Port("http", "tcp", 80),))), ports="http:8080")
        assert parse_pod_manifest(manifest.to_json()) == manifest

    @pytest.mark.parametrize(
        ("ports", "error"),
        [
            ("nope:80", 'port name "nope" could not be found in any apps'),
            ("http:80 https:80", "already mapped to pod port"),
        ],
    )
    def test_ports_must_fit(self, ports: str, error: str) -> None:
        found = image(app(ports=(Port("http", "tcp", 80), Port("https", "tcp", 443))))
        with pytest.raises(UsageError, match=error):
            build("X", found, ports=ports)

    def test_port_of_two_apps(self) -> None:
        found = image(app(ports=(Port("http", "tcp", 80),)))
        with pytest.raises(UsageError, match='port name "http" defined multiple apps'):
            build("X Y --name=b", found, found, ports="http:80")


class TestEnvironment:
    """rkt-documented order, lowest first: inherited, image, file, --set-env, --environment."""

    SOURCES = ("inherited", "image", "file", "given", "own")

    @pytest.mark.parametrize("highest", range(5))
    def test_each_source_beats_those_before_it(self, highest: int) -> None:
        values = [
            {"V": name} if index <= highest else {} for index, name in enumerate(self.SOURCES)
        ]
        settings = EnvironmentSettings(values[0], values[2], values[3])
        assert merge(settings, values[1], values[4]) == {"V": self.SOURCES[highest]}

    def test_control_rkts_code_had_another_order(self) -> None:
        """There --set-env beat --environment; the table above would not hold."""
        own, given = {"V": "own"}, {"V": "given"}
        assert {**own, **given} != merge(EnvironmentSettings({}, {}, given), {}, own)

    def test_all_sources_add_up(self) -> None:
        settings = EnvironmentSettings({"A": "1"}, {"C": "3"}, {"D": "4"})
        merged = merge(settings, {"B": "2"}, {"E": "5"})
        assert merged == {"A": "1", "B": "2", "C": "3", "D": "4", "E": "5"}

    def test_every_app_can_count_on_these(self) -> None:
        environment = effective("app", {}, terminal=None)
        assert environment == {**DEFAULTS, "AC_APP_NAME": "app", "container": "podctl"}
        assert environment["PATH"] == "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

    def test_the_image_may_replace_defaults_but_not_our_own(self) -> None:
        section = {"PATH": "/x", "HOME": "/h", "AC_APP_NAME": "lie", "container": "lie"}
        environment = effective("app", section, terminal=None)
        assert (environment["PATH"], environment["HOME"]) == ("/x", "/h")
        assert (environment["AC_APP_NAME"], environment["container"]) == ("app", "podctl")

    @pytest.mark.parametrize(("own", "seen"), [({}, "vt220"), ({"TERM": "dumb"}, "dumb")])
    def test_terminal_is_the_callers_unless_set(self, own: dict[str, str], seen: str) -> None:
        assert effective("app", own, terminal="vt220")["TERM"] == seen
        assert "TERM" not in effective("app", {}, terminal=None)

    def test_inherited_that_no_manifest_can_hold_is_left_out(self) -> None:
        hostile = {"BASH_FUNC_x%%": "() { :; }", "1": "x", "OK": "a=b\nc", "RAW": "\udcff"}
        merged = merge(EnvironmentSettings(hostile, {}, {}), {}, {})
        assert merged == {"OK": "a=b\nc"}

    def test_in_the_pods_manifest(self) -> None:
        settings = EnvironmentSettings({}, {"F": "file"}, {"G": "given"})
        found = image(app(environment={"I": "image", "F": "image"}))
        manifest = build("X --environment=G=own", found, environment=settings)
        section = manifest.apps[0].app
        assert section is not None
        assert section.environment == {"I": "image", "F": "file", "G": "own"}


class TestConvertedImages:
    ANNOTATIONS: ClassVar = {
        "appc.io/docker/repository": "team/app",
        "appc.io/docker/stopsignal": "SIGRTMIN+3",
        "appc.io/docker/stoptimeout": "90",
        "appc.io/docker/cmd": '["x"]',
    }

    def found(self, **fields: Any) -> PodImage:
        return image(app(**fields), annotations=self.ANNOTATIONS)

    def test_the_flavor_is_told_how_it_runs(self) -> None:
        one = prepared(build("X", self.found(working_directory="/srv")))
        assert (one.stop_signal, one.stop_timeout) == (signal.SIGRTMIN + 3, 90)
        assert one.make_working_directory
        assert not set(LOGIN_VARIABLES) & set(one.environment)
        assert one.environment["SHELL"] == "/bin/sh"

    def test_control_an_appc_image_runs_as_rkt_ran_it(self) -> None:
        one = prepared(build("X", image(app(working_directory="/srv"))))
        assert (one.stop_signal, one.stop_timeout) == (signal.SIGTERM, None)
        assert not one.make_working_directory
        assert (one.environment["HOME"], one.environment["USER"]) == ("/root", "root")

    def test_what_the_image_or_the_user_sets_stays(self) -> None:
        manifest = build("X --environment=USER=me", self.found(environment={"HOME": "/h"}))
        environment = prepared(manifest).environment
        assert (environment["HOME"], environment["USER"]) == ("/h", "me")
        assert "LOGNAME" not in environment

    def test_the_user_may_choose_the_signal(self) -> None:
        manifest = build("X --annotation=appc.io/docker/stopsignal=INT", self.found())
        assert prepared(manifest).stop_signal == signal.SIGINT
        with pytest.raises(InvalidInput, match="stopsignal.*'NO' is no signal"):
            build("X --annotation=appc.io/docker/stopsignal=NO", self.found())

    def test_a_manifest_of_the_user_keeps_the_image_s_ways(self) -> None:
        own = {"appc.io/docker/stoptimeout": "5"}
        given = PodManifest(apps=(RuntimeApp("my-app", KEY, annotations=own),))
        one = prepared(complete_given(given, [self.found()], lambda line: None))
        assert (one.stop_signal, one.stop_timeout) == (signal.SIGRTMIN + 3, 5)
        assert one.make_working_directory


class TestVolumes:
    POINT = MountPoint("data", "/data")
    READ_ONLY_POINT = MountPoint("data", "/data", read_only=True)

    def test_mount_point_takes_the_volume_of_its_name(self) -> None:
        found = image(app(mount_points=(self.POINT,)))
        manifest = build("--volume=data,kind=host,source=/srv X", found)
        assert mounts(manifest) == {"/data": ("/srv", False, True)}

    def test_mount_point_without_volume_gets_an_empty_one(self) -> None:
        said: list[str] = []
        manifest = build("X", image(app(mount_points=(self.POINT,))), said=said)
        assert manifest.volumes == (Volume("my-app-data", "empty"),)
        source = "/data/pods/run/u/sharedVolumes/my-app-data"
        assert mounts(manifest) == {"/data": (source, False, True)}
        assert said
        assert "implicitly creating" in said[0]

    @pytest.mark.parametrize(
        ("volume", "point", "expected"),
        [
            ("", False, False),
            ("", True, True),
            (",readOnly=true", False, True),
            (",readOnly=false", True, False),
            (",readOnly=true", True, True),
            (",readOnly=false", False, False),
        ],
    )
    def test_what_the_volume_says_of_read_only_wins(
        self, volume: str, point: bool, expected: bool
    ) -> None:
        found = image(app(mount_points=(MountPoint("data", "/data", point),)))
        manifest = build(f"--volume=data,kind=host,source=/srv{volume} X", found)
        assert mounts(manifest)["/data"][1] is expected

    def test_read_only_mount_point_holds_for_an_explicit_mount_there(self) -> None:
        found = image(app(mount_points=(self.READ_ONLY_POINT,)))
        line = "--volume=v,kind=host,source=/srv X --mount=volume=v,target=/data/"
        assert mounts(build(line, found)) == {"/data": ("/srv", True, True)}

    def test_explicit_mount_replaces_the_mount_point_at_its_path(self) -> None:
        found = image(app(mount_points=(self.POINT,)))
        line = (
            "--volume=data,kind=host,source=/one --volume=v,kind=host,source=/two "
            "X --mount=volume=v,target=/data"
        )
        assert mounts(build(line, found)) == {"/data": ("/two", False, True)}

    def test_app_mounts_replace_pod_mounts_at_their_path(self) -> None:
        line = (
            "--volume=a,kind=host,source=/a --volume=b,kind=host,source=/b "
            "--mount=volume=a,target=/m --mount=volume=a,target=/n X --mount=volume=b,target=/m Y "
            "--name=other"
        )
        manifest = build(line, image(app()), image(app()))
        assert {path: value[0] for path, value in mounts(manifest).items()} == {
            "/m": "/b",
            "/n": "/a",
        }
        assert {path: value[0] for path, value in mounts(manifest, "other").items()} == {
            "/m": "/a",
            "/n": "/a",
        }

    def test_last_of_equal_targets_wins(self) -> None:
        line = (
            "--volume=a,kind=host,source=/a --volume=b,kind=host,source=/b "
            "X --mount=volume=a,target=/mnt --mount=volume=b,target=/mnt/"
        )
        assert mounts(build(line, image(app())))["/mnt"][0] == "/b"

    def test_parents_come_before_children(self) -> None:
        line = (
            "--volume=v,kind=empty X --mount=volume=v,target=/a/b/c --mount=volume=v,target=/a "
            "--mount=volume=v,target=/a/b"
        )
        assert list(mounts(build(line, image(app())))) == ["/a", "/a/b", "/a/b/c"]

    @pytest.mark.parametrize(
        ("text", "recursive"), [("", True), (",recursive=true", True), (",recursive=false", False)]
    )
    def test_recursive_unless_told_otherwise(self, text: str, recursive: bool) -> None:
        line = f"--volume=v,kind=host,source=/v{text} X --mount=volume=v,target=/v"
        assert mounts(build(line, image(app())))["/v"][2] is recursive

    def test_apps_share_a_volume(self) -> None:
        line = "--volume=v,kind=empty --mount=volume=v,target=/v X Y --name=other"
        manifest = build(line, image(app()), image(app()))
        assert mounts(manifest) == mounts(manifest, "other")

    def test_volume_of_one_app_alone_is_nobody_elses(self) -> None:
        own = Mount("v", "/v", Volume("v", "empty"))
        apps = tuple(RuntimeApp(name, KEY, app=app(), mounts=(own,)) for name in ("a", "b"))
        manifest = PodManifest(apps=apps, volumes=(Volume("v", "empty"),))
        sources = {mounts(manifest, name)["/v"][0] for name in ("a", "b")}
        shared = "/data/pods/run/u/sharedVolumes/v"
        assert len(sources) == 2
        assert shared not in sources

    def test_mount_without_volume(self) -> None:
        with pytest.raises(UsageError, match='dangling mount point "/m": volume "v" not found'):
            build("X --mount=volume=v,target=/m", image(app()))


class TestGivenManifest:
    def complete(self, runtime: RuntimeApp, found: PodImage) -> PodManifest:
        return complete_given(PodManifest(apps=(runtime,)), [found], lambda line: None)

    def test_image_fills_in_a_missing_app_section(self) -> None:
        found = image(app(mount_points=(MountPoint("data", "/data"),)))
        manifest = self.complete(RuntimeApp("a", "sha512-aa"), found)
        assert manifest.apps[0].app == found.image.app
        assert manifest.apps[0].image_id == KEY
        assert "/data" in mounts(manifest, "a")

    def test_app_section_replaces_the_images_completely(self) -> None:
        from podctl.model.isolators import make_isolator

        own = make_isolator("os/linux/capabilities-retain-set", {"set": ["CAP_CHOWN"]})
        found = image(app(isolators=(own,), environment={"A": "1"}))
        manifest = self.complete(RuntimeApp("a", KEY, app=app(exec=("/x",))), found)
        section = manifest.apps[0].app
        assert section is not None
        assert (section.exec, section.isolators, dict(section.environment)) == (("/x",), (), {})

    def test_no_apps(self) -> None:
        with pytest.raises(UsageError, match="pod must contain at least one application"):
            complete_given(PodManifest(), [], lambda line: None)

    def test_nothing_to_execute(self) -> None:
        with pytest.raises(UsageError, match="empty"):
            self.complete(RuntimeApp("a", KEY), image(None))
