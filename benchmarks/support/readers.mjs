// What others' JavaScript makes of GLB files, as JSON: `node readers.mjs NODE_MODULES validate|unpack FILE…`.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [modules, command, ...files] = process.argv.slice(2);
const require = createRequire(pathToFileURL(`${modules}/`));

async function validate(file) {
  const report = await require("gltf-validator").validateBytes(new Uint8Array(readFileSync(file)), { maxIssues: 50 });
  const { numErrors, numWarnings, numHints, messages } = report.issues;
  return { errors: numErrors, warnings: numWarnings, hints: numHints, codes: messages.map((each) => each.code) };
}

// The rows of every view that EXT_meshopt_compression packs, as base64.
async function unpack(file) {
  const { MeshoptDecoder } = await import(pathToFileURL(`${modules}/meshoptimizer/meshopt_decoder.mjs`));
  await MeshoptDecoder.ready;
  const data = readFileSync(file);
  const length = data.readUInt32LE(12);
  const document = JSON.parse(data.subarray(20, 20 + length));
  const binary = data.subarray(28 + length);
  return document.bufferViews
    .map((view) => view.extensions?.EXT_meshopt_compression)
    .filter((packed) => packed)
    .map(({ byteOffset, byteLength, byteStride, count, mode }) => {
      const rows = new Uint8Array(byteStride * count);
      MeshoptDecoder.decodeGltfBuffer(rows, count, byteStride, binary.subarray(byteOffset, byteOffset + byteLength), mode);
      return Buffer.from(rows).toString("base64");
    });
}

const found = [];
for (const file of files) found.push(await { validate, unpack }[command](file));
console.log(JSON.stringify(found));
