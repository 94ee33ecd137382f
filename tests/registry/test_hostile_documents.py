"""Manifests, indexes and configurations that lie (rows M1-M9): one line each, nothing stored."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from refusals import BAD, assert_refused

from podctl.testing import registryfaults as faults
from podctl.testing.httpserver import Reply
from podctl.testing.ociimages import (
    DOCKER,
    OCI,
    Document,
    Image,
    chained,
    document,
    image,
    index,
    index_entry,
    layer_descriptor,
)
from podctl.testing.ocilayers import digest_of, directory, file, layer, packed

if TYPE_CHECKING:
    from collections.abc import Callable

    from clean_home import Clean

    from podctl.testing.registry import Registry

pytestmark = pytest.mark.root

BASE = layer(directory("bin"), file("bin/app", "app", mode=0o755))
TOP = layer(file("etc/motd", "hello"))
GOOD = image(BASE, TOP, config={"Cmd": ["/bin/app"]})
SIGNED_SCHEMA = "application/vnd.docker.distribution.manifest.v1+prettyjws"

Case = "Callable[[Registry], None]"
CASES: list[Any] = []


def case(
    row: str, rule: str, *, broken: bool = False
) -> Callable[[Callable[[Registry], None]], Callable[[Registry], None]]:
    """Take a function that publishes something bad as one case, refused by `rule`.

    Args:
        broken: what fails is the transfer.
    """

    def take(publish: Callable[[Registry], None]) -> Callable[[Registry], None]:
        CASES.append(pytest.param(publish, rule, broken, id=f"{row} {publish.__name__}"))
        return publish

    return take


def put(registry: Registry, one: Image) -> None:
    registry.put("bad", one, "1")


def put_manifest(registry: Registry, **fields: Any) -> None:
    put(registry, GOOD.amended(**fields))


def put_bytes(registry: Registry, data: bytes, media_type: str = OCI.manifest) -> None:
    put(registry, GOOD)
    registry.put_document("bad", Document(media_type, data), "1")


def layers_with(**fields: Any) -> list[dict[str, Any]]:
    return [layer_descriptor(BASE), layer_descriptor(TOP, **fields)]


# -- M1: bytes that are not those of the descriptor --------------------------------------------


@case("M1", "digest|bytes are not those")
def a_layer_with_a_flipped_bit(registry: Registry) -> None:
    put(registry, GOOD)
    registry.spoil("blob", faults.corrupted(), name=TOP.digest)


@case("M1", "digest|bytes are not those|stream")
def a_layer_that_is_another_layer_of_its_size(registry: Registry) -> None:
    put(registry, GOOD)
    other = layer(file("etc/motd", "hellO"), compression="none")
    data = other.blob[: len(TOP.blob)].ljust(len(TOP.blob), b"\0")
    registry.spoil("blob", faults.served(data), name=TOP.digest)


@case("M1", "size|bytes|longer|larger", broken=True)
def a_layer_longer_than_its_descriptor(registry: Registry) -> None:
    put(registry, GOOD)
    registry.spoil("blob", faults.longer(), name=TOP.digest)


@case("M1", "size|bytes|longer|larger", broken=True)
def a_layer_without_an_end(registry: Registry) -> None:
    put(registry, GOOD)
    registry.spoil("blob", faults.changed(faults.endless), name=TOP.digest)


@case("M1", "size|bytes|shorter|smaller", broken=True)
def a_layer_shorter_than_its_descriptor(registry: Registry) -> None:
    put(registry, GOOD)
    registry.spoil("blob", faults.shorter(), name=TOP.digest)


@case("M1", "size|bytes", broken=True)
def a_descriptor_that_understates(registry: Registry) -> None:
    put_manifest(registry, layers=layers_with(size=len(TOP.blob) - 1))


@case("M1", "size|bytes", broken=True)
def a_descriptor_that_overstates(registry: Registry) -> None:
    put_manifest(registry, layers=layers_with(size=len(TOP.blob) + 1))


@case("M1", "unpacks to sha256-.*, its configuration says sha256-")
def a_layer_that_unpacks_to_something_else(registry: Registry) -> None:
    """Z8: the bytes are those published, what they decompress to is not."""
    other = layer(file("etc/motd", "other"))
    lying = {"type": "layers", "diff_ids": [BASE.diff_id, other.diff_id]}
    put(registry, GOOD.reconfigured(rootfs=lying))


@case("M1", "digest|bytes are not those")
def a_configuration_with_a_flipped_bit(registry: Registry) -> None:
    put(registry, GOOD)
    registry.spoil("blob", faults.corrupted(0.9), name=GOOD.config.digest)


@case("M1", "digest|bytes")
def a_manifest_with_a_flipped_bit(registry: Registry) -> None:
    put(registry, GOOD)
    registry.spoil("manifest", faults.corrupted(0.9))


@case("M1", "digest|bytes are not those")
def an_index_that_leads_to_other_bytes(registry: Registry) -> None:
    registry.put("bad", index(GOOD), "1")
    other = image(TOP, config={"Cmd": ["/bin/app"]})
    registry.spoil("manifest", faults.document(other.manifest), name=GOOD.digest)


@case("M1", "size|bytes")
def an_index_with_a_wrong_size(registry: Registry) -> None:
    value = {"schemaVersion": 2, "manifests": [index_entry(GOOD, size=len(GOOD.manifest.data) + 1)]}
    put(registry, GOOD)
    registry.put_document("bad", document(OCI.index, value), "1")


# -- M2: digests -------------------------------------------------------------------------------

DIGESTS = {
    "traversal": "sha256:../../../../etc/passwd",
    "short": "sha256:abc",
    "long": "sha256:" + "a" * 65,
    "upper_case": "sha256:" + "A" * 64,
    "unknown_algorithm": "md5:" + "a" * 32,
    "no_algorithm": "a" * 64,
    "sha512_too_short": "sha512:" + "a" * 64,
    "with_a_newline": "sha256:" + "a" * 64 + "\n",
    "empty": "",
    "a_number": 5,
    "other_digits": "sha256:" + "\u0661" * 64,
}


@pytest.mark.parametrize("digest", DIGESTS.values(), ids=DIGESTS)
@pytest.mark.parametrize("where", ["layer", "config", "index"])
def test_m2_a_digest_is_judged_before_it_is_used(
    digest: object, where: str, registry: Registry, home: Clean
) -> None:
    put(registry, GOOD)
    if where == "layer":
        put_manifest(registry, layers=layers_with(digest=digest))
    elif where == "config":
        put_manifest(registry, config=GOOD.config.descriptor(digest=digest))
    else:
        value = {"schemaVersion": 2, "manifests": [index_entry(GOOD, digest=digest)]}
        registry.put_document("bad", document(OCI.index, value), "1")
    asked = len(registry.log)
    assert_refused(home, "digest")
    assert {visit.place.name for visit in registry.log[asked:]} == {"1"}


# -- M3: what a document is --------------------------------------------------------------------


@case("M3", "manifests|layers")
def layers_and_manifests_in_one(registry: Registry) -> None:
    """CVE-2021-41190."""
    put_manifest(registry, manifests=[index_entry(GOOD)])


@case("M3", "layers|config|belong")
def an_index_with_layers(registry: Registry) -> None:
    registry.put("bad", index(GOOD, layers=layers_with()), "1")


@case("M3", "mediaType")
def a_manifest_served_as_an_index(registry: Registry) -> None:
    put(registry, GOOD)
    registry.spoil("manifest", faults.headed(Content_Type=OCI.index))


@case("M3", "mediaType|server says")
def a_docker_manifest_served_as_an_oci_one(registry: Registry) -> None:
    put(registry, image(BASE, kind=DOCKER))
    registry.spoil("manifest", faults.headed(Content_Type=OCI.manifest))


@case("M3", "line 1, column 1")
def a_page(registry: Registry) -> None:
    put_bytes(registry, b"<!DOCTYPE html><title>Sign in</title>", "text/html")


@case("M3", "mediaType")
def a_manifest_that_calls_itself_something_else(registry: Registry) -> None:
    put_manifest(registry, mediaType="application/vnd.oci.descriptor.v1+json")


@case("M3", "type|artifact|config")
def an_artifact_that_is_no_image(registry: Registry) -> None:
    other = GOOD.config.descriptor(mediaType="application/vnd.cncf.helm.config.v1+json")
    put_manifest(registry, config=other)


@case("M3", "encrypted")
def an_encrypted_layer(registry: Registry) -> None:
    put_manifest(registry, layers=layers_with(mediaType=f"{OCI.layers['gzip']}+encrypted"))


@case("M3", "unknown type")
def a_layer_of_an_unknown_type(registry: Registry) -> None:
    put_manifest(
        registry, layers=layers_with(mediaType="application/vnd.oci.image.layer.v1.tar+br")
    )


@case("M3", "declared")
def a_layer_compressed_otherwise_than_it_says(registry: Registry) -> None:
    """Z7."""
    put_manifest(registry, layers=layers_with(mediaType=OCI.layers["zstd"]))


@case("M3", "layers")
def an_image_of_no_layers(registry: Registry) -> None:
    put(registry, image(config={"Cmd": ["/bin/app"]}))


# -- M4: schema 1 ------------------------------------------------------------------------------


@case("M4", "schema 1")
def schema_1(registry: Registry) -> None:
    value = {"schemaVersion": 1, "name": "bad", "tag": "1", "fsLayers": [], "history": []}
    put_bytes(registry, json.dumps(value).encode(), SIGNED_SCHEMA)


@case("M4", "schema 1|schemaVersion")
def schema_1_that_hides_as_schema_2(registry: Registry) -> None:
    value = {"schemaVersion": 1, "name": "bad", "tag": "1", "fsLayers": [], "history": []}
    put_bytes(registry, json.dumps(value).encode(), DOCKER.manifest)


# -- M5: indexes -------------------------------------------------------------------------------


@case("M5", "index")
def an_index_in_an_index(registry: Registry) -> None:
    put(registry, GOOD)
    for one in reversed(chained(GOOD, 50)):
        registry.put_document("bad", one, "1")


@case("M5", "index|platform|digest")
def an_index_that_names_itself(registry: Registry) -> None:
    entry = {"mediaType": OCI.index, "digest": "sha256:" + "0" * 64, "size": 300}
    value = {"schemaVersion": 2, "manifests": [entry]}
    registry.put_document("bad", document(OCI.index, value), "1")
    registry.spoil("manifest", faults.document(document(OCI.index, value)))


@case("M5", "entries|more than")
def an_index_of_ten_thousand(registry: Registry) -> None:
    entries = [index_entry(GOOD)] * 10_000
    put(registry, GOOD)
    registry.put_document(
        "bad", document(OCI.index, {"schemaVersion": 2, "manifests": entries}), "1"
    )


@case("M5", "layers")
def a_manifest_of_a_thousand_layers(registry: Registry) -> None:
    layers = [layer_descriptor(BASE, digest=digest_of(b"%d" % n)) for n in range(1000)]
    put_manifest(registry, layers=layers)


# -- M6: JSON ----------------------------------------------------------------------------------

JSON = {
    "duplicate_keys": GOOD.manifest.data.replace(
        b'"schemaVersion": 2,', b'"schemaVersion": 2,' * 2
    ),
    "byte_order_mark": b"\xef\xbb\xbf" + GOOD.manifest.data,
    "utf_16": GOOD.manifest.data.decode().encode("utf-16"),
    "not_a_number": GOOD.manifest.data.replace(b'"schemaVersion": 2', b'"schemaVersion": NaN'),
    "a_huge_exponent": GOOD.manifest.data.replace(b'"size": ', b'"size": 1e400, "x": ', 1),
    "a_huge_number": GOOD.manifest.data.replace(b'"size": ', b'"size": ' + b"9" * 5000, 1),
    "a_fraction": GOOD.manifest.data.replace(b'"size": ', b'"size": 1.5, "x": ', 1),
    "a_negative_size": GOOD.manifest.data.replace(b'"size": ', b'"size": -', 1),
    "a_lone_surrogate": GOOD.manifest.data.replace(b"sha256:", rb"\ud800", 1),
    "trailing_bytes": GOOD.manifest.data + b"{}",
    "depth": b"[" * 100_000 + b"]" * 100_000,
    "a_million_keys": b"{" + b",".join(b'"%d":0' % n for n in range(300_000)) + b"}",
    "over_four_megabytes": b" " * (5 << 20) + GOOD.manifest.data,
    "an_array": b"[]",
    "nothing": b"",
}


@pytest.mark.parametrize("data", JSON.values(), ids=JSON)
@pytest.mark.parametrize("media_type", [OCI.manifest, OCI.index], ids=["manifest", "index"])
def test_m6_bad_json_is_refused(
    data: bytes, media_type: str, registry: Registry, home: Clean
) -> None:
    put_bytes(registry, data, media_type)
    line = assert_refused(home, "fetch: ")
    assert len(line) < 500


@pytest.mark.parametrize("data", JSON.values(), ids=JSON)
def test_m6_bad_json_in_a_configuration_is_refused(
    data: bytes, registry: Registry, home: Clean
) -> None:
    data = data.replace(GOOD.manifest.data, GOOD.config.data)
    bad = GOOD._replace(config=Document(OCI.config, data))
    put(registry, bad.amended(config=bad.config.descriptor()))
    assert_refused(home, "fetch: ")


# -- M7: a configuration that is not the image's ------------------------------------------------


@case("M7", "diff_ids|layers")
def fewer_diff_ids_than_layers(registry: Registry) -> None:
    put(registry, GOOD.reconfigured(rootfs={"type": "layers", "diff_ids": [BASE.diff_id]}))


@case("M7", "diff_ids|layers")
def the_configuration_of_another_image(registry: Registry) -> None:
    other = image(BASE, TOP, layer(file("x")))
    registry.put("bad", other)
    put_manifest(registry, config=other.config.descriptor())


@case("M7", "layers|rootfs|type")
def a_root_filesystem_of_no_layers(registry: Registry) -> None:
    put(registry, GOOD.reconfigured(rootfs={"type": "tar", "diff_ids": []}))


@case("M7", "linux|os")
def a_configuration_for_another_system(registry: Registry) -> None:
    put(registry, GOOD.reconfigured(os="windows"))


@case("M7", "arm64|index says")
def a_configuration_for_another_machine_than_its_index_says(registry: Registry) -> None:
    lying = GOOD.reconfigured(architecture="arm64")
    registry.put("bad", index(lying), "1")


# -- M8: platforms -----------------------------------------------------------------------------


@case("M8", "linux/arm64.*linux/s390x|linux/s390x.*linux/arm64")
def no_image_for_this_machine(registry: Registry) -> None:
    others = [image(BASE, platform=f"linux/{name}") for name in ("arm64", "s390x")]
    registry.put("bad", index(*others), "1")


@case("M8", "linux")
def only_attestations(registry: Registry) -> None:
    registry.put("bad", index(image(BASE, platform="unknown/unknown")), "1")


@case("M8", "windows|no image for")
def only_another_system(registry: Registry) -> None:
    registry.put("bad", index(image(BASE, platform="windows/amd64")), "1")


# -- and what is simply not there ---------------------------------------------------------------


@case("404", "404|no image|not found")
def a_tag_that_is_not_there(registry: Registry) -> None:
    registry.put("bad", GOOD, "2")


@case("404", "404|no manifest|digest")
def a_manifest_that_is_not_there(registry: Registry) -> None:
    registry.put("bad", index(GOOD), "1")
    del registry.at("bad").manifests[GOOD.digest]


@case("404", "404", broken=True)
def a_layer_that_is_not_there(registry: Registry) -> None:
    put(registry, GOOD)
    del registry.at("bad").blobs[TOP.digest]


@case("404", "404|configuration")
def a_configuration_that_is_not_there(registry: Registry) -> None:
    put(registry, GOOD)
    del registry.at("bad").blobs[GOOD.config.digest]


@case("tar", "archive|tar")
def a_layer_that_is_no_archive(registry: Registry) -> None:
    put(registry, image(BASE, packed(b"no archive " * 100)))


@case("tar", "\\.\\.")
def a_layer_that_leads_out(registry: Registry) -> None:
    put(registry, image(BASE, layer(file("../../outside"))))


@case("tar", "stream|compressed")
def a_layer_that_is_cut_off(registry: Registry) -> None:
    put(registry, image(BASE, TOP._replace(blob=TOP.blob[:-9])))


@pytest.mark.parametrize(("publish", "rule", "broken"), CASES)
def test_refused_with_nothing_stored(
    publish: Callable[[Registry], None],
    rule: str,
    broken: bool,
    registry: Registry,
    home: Clean,
) -> None:
    publish(registry)
    assert_refused(home, rule, broken=broken)
    # And it is in nobody's way.
    registry.mend()
    put(registry, GOOD)
    home.must("fetch", BAD)
    assert home.leftovers() == []


def test_control_the_image_they_are_made_of_is_taken(registry: Registry, home: Clean) -> None:
    registry.put("bad", index(GOOD, image(BASE, platform="linux/arm64")), "1")
    home.must("fetch", BAD)
    assert len(home.images()) == 1
    assert home.leftovers() == []


def test_m1_a_layer_is_refused_at_its_first_byte_too_many(registry: Registry, home: Clean) -> None:
    """An endless body is not read to an end it does not have, however large it is."""
    put(registry, GOOD)
    zeros = Reply(200, {}, b"\0" * (1 << 20), endless=True, framing="close")
    registry.spoil("blob", faults.answered(zeros), name=TOP.digest)
    assert_refused(home, "size|bytes|larger|longer", broken=True)


def test_a_refused_image_takes_nothing_from_one_that_is_there(
    registry: Registry, home: Clean
) -> None:
    registry.put("good", GOOD, "1")
    home.must("fetch", "docker://registry.example/good:1")
    put_manifest(registry, layers=[*layers_with(), layer_descriptor(layer(file("x")))])
    put(registry, GOOD.reconfigured(rootfs={"type": "layers", "diff_ids": []}))
    assert_refused(home, "diff_ids|layers")
    assert len(home.images()) == 1
    home.must("fsck")
