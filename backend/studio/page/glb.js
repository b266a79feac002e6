// A GLB as the service writes it: one mesh, one material, a texture or colours of vertices.

const COMPONENTS = {
  5120: Int8Array, 5121: Uint8Array, 5122: Int16Array, 5123: Uint16Array, 5125: Uint32Array, 5126: Float32Array,
};
const WIDTHS = { SCALAR: 1, VEC2: 2, VEC3: 3, VEC4: 4 };
const JSON_CHUNK = 0x4e4f534a;

export class GlbError extends Error {}

/**
 * Return the mesh of a file: {positions, normals, uv, colors, indices, texture, baseColor, bounds}.
 * positions : (3N) metres, Y up; colors : {data, size, normalized}, linear; texture : ImageBitmap; what is absent is null
 * Throws GlbError for what is no GLB, and for a compressed one.
 */
export async function readGlb(buffer) {
  const view = new DataView(buffer);
  if (buffer.byteLength < 20 || view.getUint32(0, true) !== 0x46546c67) throw new GlbError("This is not a GLB file.");
  const jsonLength = view.getUint32(12, true);
  if (view.getUint32(16, true) !== JSON_CHUNK) throw new GlbError("This GLB has no JSON first.");
  const document = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 20, jsonLength)));
  if (document.extensionsRequired?.length) throw new GlbError("compressed");
  const start = 20 + jsonLength + 8;
  const read = (index) => (index === undefined ? null : accessor(document, buffer, start, index));
  const primitive = document.meshes[0].primitives[0];
  const { POSITION, NORMAL, TEXCOORD_0, COLOR_0 } = primitive.attributes;
  const look = document.materials?.[primitive.material]?.pbrMetallicRoughness ?? {};
  return {
    positions: read(POSITION).data,
    normals: read(NORMAL)?.data ?? null,
    uv: read(TEXCOORD_0)?.data ?? null,
    colors: read(COLOR_0),
    indices: Uint32Array.from(read(primitive.indices).data),
    texture: look.baseColorTexture ? await texture(document, buffer, start, look.baseColorTexture.index) : null,
    baseColor: look.baseColorFactor ?? [0.6, 0.58, 0.55, 1],
    bounds: [document.accessors[POSITION].min, document.accessors[POSITION].max],
  };
}

function accessor(document, buffer, start, index) {
  const found = document.accessors[index];
  const place = document.bufferViews[found.bufferView];
  const size = WIDTHS[found.type];
  const Kind = COMPONENTS[found.componentType];
  const offset = start + (place.byteOffset ?? 0) + (found.byteOffset ?? 0);
  return { data: new Kind(buffer, offset, found.count * size), size, normalized: Boolean(found.normalized) };
}

function texture(document, buffer, start, index) {
  const image = document.images[document.textures[index].source];
  const place = document.bufferViews[image.bufferView];
  const bytes = new Uint8Array(buffer, start + (place.byteOffset ?? 0), place.byteLength);
  return createImageBitmap(new Blob([bytes], { type: image.mimeType }), { colorSpaceConversion: "none" });
}
