"""Which image of an index runs here, and how architectures are spelt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from podctl.errors import ManifestInvalid, Refused
from podctl.model.labels import VALID_OS_ARCH, host_labels
from podctl_fetch_docker import platforms
from podctl_fetch_docker.descriptors import Descriptor
from podctl_fetch_docker.manifests import Index
from podctl_fetch_docker.mediatypes import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from podctl_fetch_docker.platforms import (
    Platform,
    appc_arch,
    check_same,
    choose,
    normalise,
    wanted_platform,
)

if TYPE_CHECKING:
    from pathlib import Path


def platform(text: str) -> Platform:
    return Platform(*text.split("/"))


def entry(text: str | None, **fields: Any) -> Descriptor:
    digest = f"sha256:{abs(hash((text, repr(fields)))):064x}"
    found = None if text is None else platform(text)
    return Descriptor(OCI_MANIFEST, digest, 1, found)._replace(**fields)


def index(*texts: str | None | Descriptor) -> Index:
    entries = [one if isinstance(one, Descriptor) else entry(one) for one in texts]
    return Index(OCI_INDEX, tuple(entries))


def chosen(wanted: str, *texts: str | None | Descriptor) -> str:
    return str(choose(index(*texts), platform(wanted)).platform)


@pytest.mark.parametrize(
    ("wanted", "offered", "best"),
    [
        ("linux/amd64", "linux/arm64/v8 linux/amd64 windows/amd64", "linux/amd64"),
        ("linux/amd64", "linux/amd64/v2 linux/amd64", "linux/amd64"),
        ("linux/amd64/v3", "linux/amd64 linux/amd64/v2 linux/amd64/v3", "linux/amd64/v3"),
        ("linux/amd64/v3", "linux/amd64 linux/amd64/v4 linux/amd64/v2", "linux/amd64/v2"),
        ("linux/amd64/v4", "linux/amd64/v1", "linux/amd64/v1"),
        ("linux/arm64", "linux/arm/v7 linux/arm64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64", "linux/arm64"),
        ("linux/arm64", "linux/arm64/v8", "linux/arm64/v8"),
        ("linux/arm", "linux/arm/v5 linux/arm/v6 linux/arm/v7", "linux/arm/v7"),
        ("linux/arm/v7", "linux/arm/v5 linux/arm/v6 linux/arm/v8", "linux/arm/v6"),
        ("linux/arm/v6", "linux/arm/v5 linux/arm/v7", "linux/arm/v5"),
        ("linux/arm/v8", "linux/arm/v5 linux/arm", "linux/arm"),
        ("linux/386", "linux/amd64 linux/386", "linux/386"),
        ("linux/riscv64", "linux/amd64 linux/riscv64", "linux/riscv64"),
        ("linux/amd64", "linux/x86_64", "linux/x86_64"),
        ("linux/arm64", "linux/aarch64", "linux/aarch64"),
        ("linux/arm/v7", "linux/arm/7", "linux/arm/7"),
        ("linux/amd64", "Linux/AMD64", "Linux/AMD64"),
    ],
)
def test_m8_the_best_variant_that_runs_is_chosen(wanted: str, offered: str, best: str) -> None:
    assert chosen(wanted, *offered.split()) == best


@pytest.mark.parametrize(
    ("wanted", "offered", "hint"),
    [
        ("linux/amd64", "linux/arm64/v8 windows/amd64", "it has: linux/arm64/v8, windows/amd64"),
        ("linux/arm/v6", "linux/arm/v7", "linux/arm/v7"),
        ("linux/arm/v6", "linux/arm", "linux/arm"),
        ("linux/amd64", "linux/amd64/v2", "linux/amd64/v2"),
        ("linux/arm64", "linux/arm/v8", "linux/arm/v8"),
        ("linux/s390x", "linux/s390x/z15", "linux/s390x/z15"),
        ("linux/amd64", "", "it has no image at all"),
    ],
)
def test_m8_a_refusal_names_the_platforms_that_exist(wanted: str, offered: str, hint: str) -> None:
    with pytest.raises(Refused, match=f"has no image for {wanted}") as caught:
        choose(index(*offered.split()), platform(wanted))
    assert hint in (caught.value.hint or "")


def test_a_refusal_names_a_dozen_platforms_at_most() -> None:
    with pytest.raises(Refused) as caught:
        choose(index(*(f"linux/cpu{n}" for n in range(500))), platform("linux/amd64"))
    assert "488 more" in (caught.value.hint or "")


def test_of_equals_the_first_is_chosen() -> None:
    entries = index(entry("linux/amd64", size=1), entry("linux/amd64", size=2))
    assert choose(entries, platform("linux/amd64")).size == 1


def test_attestations_artifacts_and_further_indexes_are_no_images() -> None:
    attestation = entry(
        "unknown/unknown", annotations={"vnd.docker.reference.type": "attestation-manifest"}
    )
    disguised = entry("linux/amd64", annotations=attestation.annotations)
    artifact = entry("linux/amd64", artifact_type="application/x")
    nested = entry("linux/amd64", media_type=OCI_INDEX)
    others = (attestation, disguised, artifact, nested)
    found = choose(index(*others, entry("linux/amd64", size=9)), platform("linux/amd64"))
    assert found.size == 9
    with pytest.raises(Refused) as caught:
        choose(index(*others), platform("linux/amd64"))
    assert caught.value.hint == "it has: further indexes, which are not followed"


def test_features_that_nobody_knows_are_not_there() -> None:
    special = entry(None, platform=Platform("linux", "amd64", "", ("quantum",)))
    with pytest.raises(Refused):
        choose(index(special), platform("linux/amd64"))


def test_a_single_manifest_without_a_platform_is_taken_at_its_word() -> None:
    assert choose(index(None), platform("linux/amd64")).platform is None
    docker = entry(None, media_type=DOCKER_MANIFEST)
    assert choose(index(docker), platform("linux/amd64")) == docker
    for ambiguous in (index(None, entry(None, size=2)), index(None, "linux/arm64")):
        with pytest.raises(Refused) as caught:
            choose(ambiguous, platform("linux/amd64"))
        assert "without a platform" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("labels", "wanted"),
    [
        ({"os": "linux", "arch": "i386"}, "linux/386"),
        ({"os": "linux", "arch": "aarch64"}, "linux/arm64/v8"),
        ({"os": "linux", "arch": "armv6l"}, "linux/arm/v6"),
        ({"os": "linux", "arch": "armv7l"}, "linux/arm/v7"),
        ({"os": "linux", "arch": "ppc64le"}, "linux/ppc64le"),
        ({"os": "freebsd", "arch": "i386"}, "freebsd/386"),
    ],
)
def test_labels_ask_for_a_platform(labels: dict[str, str], wanted: str) -> None:
    assert str(wanted_platform(labels)) == wanted


def test_without_labels_this_host_is_meant() -> None:
    wanted = wanted_platform({})
    assert (wanted.os, appc_arch(wanted)) == ("linux", host_labels()["arch"])
    assert wanted == wanted_platform(host_labels())


@pytest.mark.parametrize(
    ("flags", "level"),
    [
        (None, "v1"),
        ("fpu sse2", "v1"),
        ("cx16 lahf_lm popcnt sse4_1 sse4_2 ssse3", "v2"),
        ("cx16 lahf_lm popcnt sse4_1 sse4_2 ssse3 avx avx2 bmi1 bmi2 f16c fma abm", "v2"),
        ("avx avx2 bmi1 bmi2 f16c fma abm movbe xsave", "v1"),
        (
            "cx16 lahf_lm popcnt sse4_1 sse4_2 ssse3 avx avx2 bmi1 bmi2 f16c fma abm movbe xsave",
            "v3",
        ),
        (
            "cx16 lahf_lm popcnt sse4_1 sse4_2 ssse3 avx avx2 bmi1 bmi2 f16c fma abm movbe xsave "
            "avx512f avx512bw avx512cd avx512dq avx512vl",
            "v4",
        ),
    ],
)
def test_the_processor_s_level_is_read_from_its_flags(
    tmp_path: Path, flags: str | None, level: str
) -> None:
    file = tmp_path / "cpuinfo"
    if flags is not None:
        file.write_text(f"processor\t: 0\nflags\t\t: {flags}\n\nflags\t\t: other\n")
    assert platforms._amd64_level(str(file)) == level


def test_every_architecture_of_appc_survives_the_way_there_and_back() -> None:
    for arch in VALID_OS_ARCH["linux"]:
        assert appc_arch(wanted_platform({"os": "linux", "arch": arch})) == arch


@pytest.mark.parametrize(
    ("text", "arch"),
    [
        ("linux/arm", "armv7l"),
        ("linux/arm/v5", "armv6l"),
        ("linux/arm/v6", "armv6l"),
        ("linux/arm/v8", "armv7l"),
        ("linux/arm64", "aarch64"),
        ("linux/amd64/v3", "amd64"),
        ("linux/riscv64", "riscv64"),
        ("linux/mips64le", "mips64le"),
    ],
)
def test_architectures_as_appc_spells_them(text: str, arch: str) -> None:
    assert appc_arch(platform(text)) == arch


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("linux/arm", "linux/arm/v7"),
        ("linux/armhf", "linux/arm/v7"),
        ("linux/armel", "linux/arm/v6"),
        ("linux/aarch64", "linux/arm64/v8"),
        ("linux/x86-64", "linux/amd64/v1"),
        ("linux/i386", "linux/386"),
    ],
)
def test_one_platform_has_one_spelling(text: str, normal: str) -> None:
    assert str(normalise(platform(text))) == normal


@pytest.mark.parametrize(
    ("stated", "listed"),
    [
        ("linux/amd64", None),
        ("linux/amd64", "linux/amd64"),
        ("linux/arm", "linux/arm/v6"),
        ("linux/arm/v6", "linux/arm"),
        ("linux/arm64", "linux/arm64/v8"),
        ("linux/x86_64", "linux/amd64"),
    ],
)
def test_m7_a_configuration_of_the_listed_platform_is_taken(
    stated: str, listed: str | None
) -> None:
    check_same(platform(stated), None if listed is None else platform(listed), "configuration")


@pytest.mark.parametrize(
    ("stated", "listed"),
    [
        ("linux/arm64", "linux/amd64"),
        ("windows/amd64", "linux/amd64"),
        ("linux/arm/v7", "linux/arm/v6"),
        ("linux/arm", "linux/arm64"),
    ],
)
def test_m7_a_configuration_of_another_platform_is_refused(stated: str, listed: str) -> None:
    with pytest.raises(ManifestInvalid, match=f"is for {stated}, its index says {listed}"):
        check_same(platform(stated), platform(listed), "configuration")
