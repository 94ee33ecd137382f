// Record what sigstore's own libraries sign and how they judge bundles, for test_recorded.py.
//
//     npm install @sigstore/bundle @sigstore/sign @sigstore/verify @sigstore/protobuf-specs
//     cp record_sigstore.mjs . && node record_sigstore.mjs OUTPUT.json
//
// They check the signature of a bundle and leave it to the caller what it is over, so only cases
// about signatures are judged here.

import crypto from "node:crypto";
import fs from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(import.meta.url);
const { bundleFromJSON, bundleToJSON } = require("@sigstore/bundle");
const { DSSEBundleBuilder, MessageSignatureBundleBuilder } = require("@sigstore/sign");
const { toSignedEntity, toTrustMaterial, Verifier } = require("@sigstore/verify");
const { TrustedRoot } = require("@sigstore/protobuf-specs");

const TYPE = "application/vnd.in-toto+json";
const sha256 = (data) => crypto.createHash("sha256").update(data).digest("hex");

const config = JSON.stringify({ architecture: "amd64", os: "linux" });
const manifest = JSON.stringify({
  schemaVersion: 2,
  config: { digest: `sha256:${sha256(config)}`, size: config.length },
  layers: [],
});
const image = JSON.stringify({
  config,
  image_index: null,
  kind: "podctl.image/1",
  manifest,
  reference: "registry.example/team/app:1.0",
});
const statement = JSON.stringify({
  _type: "https://in-toto.io/Statement/v1",
  subject: [{ digest: { sha256: sha256(manifest) } }],
  predicateType: "https://sigstore.dev/cosign/sign/v1",
  predicate: {},
});

const pair = {
  p256: () => crypto.generateKeyPairSync("ec", { namedCurve: "P-256" }),
  p384: () => crypto.generateKeyPairSync("ec", { namedCurve: "P-384" }),
  ed25519: () => crypto.generateKeyPairSync("ed25519"),
  rsa2048: () => crypto.generateKeyPairSync("rsa", { modulusLength: 2048 }),
};

function signer({ privateKey, publicKey }, kind) {
  const spki = publicKey.export({ type: "spki", format: "der" });
  const hash = kind === "ed25519" ? null : "sha256";
  return {
    sign: async (data) => ({
      signature: crypto.sign(hash, data, privateKey),
      key: {
        $case: "publicKey",
        publicKey: publicKey.export({ type: "spki", format: "pem" }),
        hint: crypto.createHash("sha256").update(spki).digest("base64"),
      },
    }),
  };
}

async function envelope(keys, kind) {
  const builder = new DSSEBundleBuilder({ signer: signer(keys, kind), witnesses: [] });
  return bundleToJSON(await builder.create({ data: Buffer.from(statement), type: TYPE }));
}

async function message(keys, kind) {
  const builder = new MessageSignatureBundleBuilder({ signer: signer(keys, kind), witnesses: [] });
  return bundleToJSON(await builder.create({ data: Buffer.from(manifest) }));
}

function accepts(value, publicKey) {
  const root = TrustedRoot.fromJSON({});
  const trusted = toTrustMaterial(root, () => ({ publicKey, validFor: () => true }));
  const none = { ctlogThreshold: 0, tlogThreshold: 0, timestampThreshold: 0 };
  try {
    const entity = toSignedEntity(bundleFromJSON(value), Buffer.from(manifest));
    new Verifier(trusted, none).verify(entity);
    return true;
  } catch (error) {
    return false;
  }
}

function record(name, value, publicKey) {
  return {
    case: name,
    accepted: accepts(value, publicKey),
    key: publicKey.export({ type: "spki", format: "pem" }),
    document: image,
    signatures: JSON.stringify({ signatures: [["bundle", JSON.stringify(value), ""]] }),
  };
}

function changed(value, change) {
  const copied = JSON.parse(JSON.stringify(value));
  change(copied);
  return copied;
}

const signed = [];
for (const kind of Object.keys(pair)) {
  const keys = pair[kind]();
  signed.push(record(`${kind}-envelope`, await envelope(keys, kind), keys.publicKey));
  // @sigstore/verify always asks for SHA-256 here, which Ed25519 does not take.
  if (kind === "ed25519") continue;
  signed.push(record(`${kind}-message`, await message(keys, kind), keys.publicKey));
}
if (!signed.every((one) => one.accepted)) throw new Error("a control fails");

const alice = pair.p256();
const mallory = pair.p256();
const dsse = await envelope(alice, "p256");
const blob = await message(alice, "p256");
const raw = crypto.sign("sha256", Buffer.from(statement), alice.privateKey).toString("base64");
const sig = Buffer.from(dsse.dsseEnvelope.signatures[0].sig, "base64");
const other = Buffer.from(statement.replace("{}}", '{"a":1}}')).toString("base64");

const cases = {
  good: [dsse],
  "good-message": [blob],
  "another-key": [await envelope(mallory, "p256")],
  "another-key-message": [await message(mallory, "p256")],
  "version-0.1": [changed(dsse, (b) => (b.mediaType = b.mediaType.replace(".v0.3+json", "+json;version=0.1")))],
  "version-9": [changed(dsse, (b) => (b.mediaType = b.mediaType.replace("0.3", "9.9")))],
  "no-media-type": [changed(dsse, (b) => delete b.mediaType)],
  "no-material": [changed(dsse, (b) => delete b.verificationMaterial)],
  "no-content": [changed(dsse, (b) => delete b.dsseEnvelope)],
  "changed-payload": [changed(dsse, (b) => (b.dsseEnvelope.payload = other))],
  "changed-type": [changed(dsse, (b) => (b.dsseEnvelope.payloadType = "text/plain"))],
  "without-encoding": [changed(dsse, (b) => (b.dsseEnvelope.signatures[0].sig = raw))],
  "junk-signature": [changed(dsse, (b) => (b.dsseEnvelope.signatures[0].sig = "AAAA"))],
  "no-signature": [changed(dsse, (b) => (b.dsseEnvelope.signatures = []))],
  "two-signatures": [changed(dsse, (b) => b.dsseEnvelope.signatures.push(b.dsseEnvelope.signatures[0]))],
  "trailing-byte": [
    changed(dsse, (b) => {
      b.dsseEnvelope.signatures[0].sig = Buffer.concat([sig, Buffer.from([0])]).toString("base64");
    }),
  ],
  "other-digest": [
    changed(blob, (b) => {
      b.messageSignature.messageDigest.digest = Buffer.alloc(32).toString("base64");
    }),
  ],
  "junk-message-signature": [changed(blob, (b) => (b.messageSignature.signature = "AAAA"))],
  "keyless-without-certificate": [
    changed(dsse, (b) => (b.verificationMaterial = { certificate: { rawBytes: "MAA=" } })),
  ],
};
const judged = Object.entries(cases).map(([name, [value]]) => record(name, value, alice.publicKey));

const version = (name) => `${name} ${require(`${name}/package.json`).version}`;
const tool = `${version("@sigstore/sign")}, ${version("@sigstore/verify")}`;
const now = Math.floor(Date.now() / 1000) + 1;
fs.writeFileSync(process.argv[2], JSON.stringify({ tool, signed, judged, now }, null, 1) + "\n");
