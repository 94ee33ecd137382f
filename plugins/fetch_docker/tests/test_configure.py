"""What a fetch is told of this host: places, secrets, certificates."""

from __future__ import annotations

import os
import ssl
from typing import TYPE_CHECKING, Any

import pytest

from podctl.errors import FetchFailed, UsageError
from podctl.model.fetching import FetchRequest
from podctl.model.reference import parse
from podctl.sys.child import Privileges, spawn
from podctl.testing.certs import Authority, Identity
from podctl_fetch_docker.certificates import Certificates, certificates_for
from podctl_fetch_docker.configure import configure
from podctl_fetch_docker.trusted import surroundings

if TYPE_CHECKING:
    from collections.abc import Callable

APP = "library/app"


def test_an_unconfigured_host_has_one_plain_place(host: Any) -> None:
    settings = configure(parse("docker://busybox"), FetchRequest(), host.around)
    (endpoint,) = settings.endpoints
    assert endpoint.host == "registry-1.docker.io"
    assert endpoint.repository == "library/busybox"
    assert (endpoint.secret, endpoint.context, endpoint.insecure) == (None, None, False)
    assert endpoint.contexts() == {}


def test_each_place_has_its_own_secret(host: Any) -> None:
    host.write(
        "etc/containers/registries.conf",
        '[[registry]]\nlocation = "a.example"\n[[registry.mirror]]\nlocation = "b.example/cache"',
    )
    host.write(
        "run/containers/auth.json",
        '{"auths": {"a.example": {"auth": "YTpw"}, "b.example/cache": {"auth": "Yjpw"}}}',
    )
    settings = configure(parse("docker://a.example/x"), FetchRequest(), host.around)
    mirror, own = settings.endpoints
    assert (mirror.host, mirror.repository, mirror.secret.user) == ("b.example", "cache/x", "b")
    assert (own.host, own.repository, own.secret.user) == ("a.example", "x", "a")


def test_the_environment_of_the_process_is_what_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/x")
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    assert surroundings().config == "/home/x/.config"
    monkeypatch.setenv("XDG_CONFIG_HOME", "/config")
    assert surroundings().config == "/config"
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    monkeypatch.setenv("HOME", "relative")
    assert (surroundings().home, surroundings().config) == ("", "")


# -- certs.d ---------------------------------------------------------------------------------------


@pytest.fixture
def private() -> Authority:
    """An authority nobody trusts by default."""
    return Authority("private")


@pytest.fixture
def private_site(
    at: Callable[..., Any], private: Authority, app: Any, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """A registry with a certificate of the private authority."""
    monkeypatch.setattr(Authority, "issue", _issue_by(private, Authority.issue))
    site = at()
    site.registry.put(APP, app, "1.0")
    return site


def _issue_by(authority: Authority, issue: Any) -> Any:
    return lambda _self, *names, **fields: issue(authority, *names, **fields)


@pytest.mark.parametrize("place", ["containers", "docker"])
def test_an_authority_of_a_registry_is_believed(
    private_site: Any, private: Authority, place: str
) -> None:
    with pytest.raises(FetchFailed, match="unable to get local issuer"):
        private_site.resolve()
    host = private_site.host
    host.write(f"etc/{place}/certs.d/{private_site.name}/ca.crt", private.pem)
    resolution = private_site.resolve()
    assert private_site.layers(resolution)


def test_an_authority_is_believed_for_its_registry_alone(
    private_site: Any, private: Authority
) -> None:
    for name in ("127.0.0.1", "other.example", "127.0.0.1:1"):
        private_site.host.write(f"etc/containers/certs.d/{name}/ca.crt", private.pem)
    with pytest.raises(FetchFailed, match="unable to get local issuer"):
        private_site.resolve()


def test_the_usual_authorities_are_believed_as_well(site: Any, app: Any, private: Any) -> None:
    site.registry.put(APP, app, "1.0")
    site.host.write(f"etc/containers/certs.d/{site.name}/ca.crt", private.pem)
    assert site.resolve().document


class Asking(Identity):
    """A server's certificate; the server wants to see one of its clients."""

    authorities: bytes

    def context(self) -> ssl.SSLContext:
        context = super().context()
        context.load_verify_locations(cadata=self.authorities.decode())
        context.verify_mode = ssl.CERT_REQUIRED
        return context


@pytest.fixture
def asking_site(
    at: Callable[..., Any], authority: Authority, app: Any, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """A registry that wants a client certificate."""
    issue = Authority.issue

    def asking(self: Authority, *names: str, **fields: Any) -> Identity:
        made = Asking(*issue(self, *names, **fields))
        made.authorities = authority.pem
        return made

    monkeypatch.setattr(Authority, "issue", asking)
    site = at()
    monkeypatch.undo()
    site.registry.put(APP, app, "1.0")
    return site


@pytest.mark.root
def test_a_client_certificate_only_root_can_read_reaches_the_child(
    asking_site: Any, authority: Authority
) -> None:
    with pytest.raises(FetchFailed):
        asking_site.resolve()
    place = f"etc/containers/certs.d/{asking_site.name}"
    shown = authority.issue("somebody")
    asking_site.host.write(f"{place}/client.cert", shown.certificate)
    key = asking_site.host.write(f"{place}/client.key", shown.key, 0o600)
    asking_site.transport.transport_preload()
    request = asking_site.asked()
    reference = asking_site.reference()

    def work() -> Any:
        assert not os.access(key, os.R_OK)
        return asking_site.transport.transport_resolve(reference, request).location

    with spawn(work, privileges=Privileges.NONE, name="resolve") as child:
        assert str(child.wait()).startswith(f"docker://{asking_site.name}/{APP}@")
    assert asking_site.host.said == []


def test_a_client_certificate_is_not_shown_to_whom_a_registry_redirects(
    asking_site: Any, authority: Authority, app: Any, serve: Any
) -> None:
    from podctl.testing.httpserver import Reply
    from podctl.testing.registryfaults import elsewhere

    place = f"etc/containers/certs.d/{asking_site.name}"
    shown = authority.issue("somebody")
    asking_site.host.write(f"{place}/client.cert", shown.certificate)
    asking_site.host.write(f"{place}/client.key", shown.key)
    identity = Asking(*authority.issue("127.0.0.1"))
    identity.authorities = authority.pem
    curious = serve({"": Reply(body=app.config.data)}, identity=identity)
    open_one = serve({"": Reply(body=app.config.data)})
    for server, allowed in ((open_one, True), (curious, False)):
        asking_site.registry.mend()
        asking_site.registry.spoil("blob", elsewhere(server.url("/blob")))
        if allowed:
            assert asking_site.resolve(want_signature=False).document
        else:
            with pytest.raises(FetchFailed):
                asking_site.resolve(want_signature=False)
    assert curious.log == []


def found(host: Any, name: str = "a.example") -> Certificates:
    return certificates_for(name, host.around, host.said.append)


def test_the_first_directory_that_is_there_counts(host: Any, private: Any) -> None:
    host.write("etc/docker/certs.d/a.example/ca.crt", private.pem)
    assert found(host).authorities
    (host.top / "etc/containers/certs.d/a.example").mkdir(parents=True)
    assert found(host) == Certificates()


def test_a_user_has_a_directory_of_their_own_and_root_has_not(host: Any, private: Any) -> None:
    host.write("home/.config/containers/certs.d/a.example/ca.crt", private.pem)
    assert found(host) == Certificates()
    assert found(host._replace(around=host.around._replace(uid=1000))).authorities


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["client.cert"], "client.cert: there is no .*client.key for it"),
        (["client.key"], "client.key: there is no .*client.cert for it"),
        (["a.cert", "a.key", "b.cert", "b.key"], "has several client certificates"),
        (["ca.crt"], "holds no certificate in PEM"),
    ],
)
def test_an_incomplete_directory_is_refused(host: Any, names: list[str], says: str) -> None:
    for name in names:
        host.write(f"etc/containers/certs.d/a.example/{name}", "x")
    with pytest.raises(UsageError, match=says):
        found(host)


def test_a_damaged_certificate_is_refused(host: Any) -> None:
    text = "-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n"
    host.write("etc/containers/certs.d/a.example/ca.crt", text)
    with pytest.raises((UsageError, FetchFailed), match="a.example"):
        configure(parse("docker://a.example/x"), FetchRequest(), host.around)


def test_a_key_everybody_can_read_is_said(host: Any, authority: Authority) -> None:
    made = authority.issue("x")
    host.write("etc/containers/certs.d/a.example/c.cert", made.certificate)
    key = host.write("etc/containers/certs.d/a.example/c.key", made.key, 0o644)
    found(host)
    assert host.said == [f"{key}: every user can read this key, chmod 600 it"]


# -- insecure --------------------------------------------------------------------------------------


def test_an_insecure_registry_may_be_plain_or_nobody(
    at: Callable[..., Any], host: Any, app: Any
) -> None:
    plain, nobody = at(tls=False), at(ca_file=None)
    for site in (plain, nobody):
        site.registry.put(APP, app, "1.0")
        with pytest.raises(FetchFailed):
            site.resolve()
    host.write(
        "etc/containers/registries.conf",
        "\n".join(
            f'[[registry]]\nlocation = "{site.name}"\ninsecure = true\n' for site in (plain, nobody)
        ),
    )
    for site, scheme in ((plain, "http"), (nobody, "https")):
        resolution = site.resolve()
        assert resolution.context.startswith(f"{scheme}://")
        assert site.layers(resolution)


def test_insecure_is_for_its_registry_alone(at: Callable[..., Any], host: Any, app: Any) -> None:
    """A mirror may be nobody; the registry behind it still has to be who it is."""
    own, mirror = at(ca_file=None), at(ca_file=None)
    for site in (own, mirror):
        site.registry.put(APP, app, "1.0")
    host.write(
        "etc/containers/registries.conf",
        f'[[registry]]\nlocation = "{own.name}"\n'
        f'[[registry.mirror]]\nlocation = "{mirror.name}"\ninsecure = true\n',
    )
    assert own.resolve(want_signature=False).context.startswith(f"https://{mirror.name}/")
    mirror.registry.repositories.clear()
    with pytest.raises(FetchFailed, match="TLS certificate is not valid"):
        own.resolve()
