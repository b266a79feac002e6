// The programs that run on the graphics card. Light is worked out in linear values and shown in sRGB.

export const MESH_VERTEX = `#version 300 es
layout(location = 0) in vec3 position;
layout(location = 1) in vec3 normal;
layout(location = 2) in vec2 uv;
layout(location = 3) in vec4 color;
uniform mat4 transform;
out vec3 vNormal;
out vec2 vUv;
out vec4 vColor;
void main() {
  gl_Position = transform * vec4(position, 1.0);
  vNormal = normal;
  vUv = uv;
  vColor = color;
}`;

export const MESH_FRAGMENT = `#version 300 es
precision highp float;
in vec3 vNormal;
in vec2 vUv;
in vec4 vColor;
uniform sampler2D image;
uniform int mode;      // 0 colour, 1 clay, 2 normals, 3 flat
uniform int source;    // 0 one colour, 1 vertices, 2 texture
uniform vec4 flatColor;
uniform vec3 clay;
uniform mat3 camera;   // columns: right, up, back
out vec4 shown;

vec3 encode(vec3 c) {
  c = clamp(c, 0.0, 1.0);
  return mix(c * 12.92, 1.055 * pow(c, vec3(1.0 / 2.4)) - 0.055, step(0.0031308, c));
}

void main() {
  if (mode == 3) { shown = flatColor; return; }
  vec3 n = normalize(vNormal);
  if (!gl_FrontFacing) n = -n;
  vec3 seen = n * camera;
  if (mode == 2) { shown = vec4(n * 0.5 + 0.5, 1.0); return; }
  vec3 base = source == 2 ? texture(image, vUv).rgb : source == 1 ? vColor.rgb : flatColor.rgb;
  if (mode == 1) base = clay;
  float key = max(dot(seen, normalize(vec3(-0.45, 0.75, 0.6))), 0.0);
  float fill = max(dot(seen, normalize(vec3(0.8, 0.1, 0.5))), 0.0);
  float sky = n.y * 0.5 + 0.5;
  // The picture's own light lies in its colours already, so they are lit softly.
  float light = mode == 1 ? 0.24 + 0.22 * sky + 0.62 * key + 0.16 * fill : 0.62 + 0.16 * sky + 0.30 * key + 0.06 * fill;
  float rim = pow(1.0 - max(seen.z, 0.0), 4.0) * (mode == 1 ? 0.10 : 0.04);
  shown = vec4(encode(base * light + rim), 1.0);
}`;

export const LINE_VERTEX = `#version 300 es
layout(location = 0) in vec3 position;
uniform mat4 transform;
void main() { gl_Position = transform * vec4(position, 1.0); }`;

export const LINE_FRAGMENT = `#version 300 es
precision mediump float;
uniform vec4 flatColor;
out vec4 shown;
void main() { shown = flatColor; }`;

export const GROUND_VERTEX = `#version 300 es
layout(location = 0) in vec2 corner;
uniform mat4 transform;
uniform vec3 middle;
uniform float reach;
out vec2 place;
void main() {
  place = corner * reach;
  gl_Position = transform * vec4(middle.x + place.x, middle.y, middle.z + place.y, 1.0);
}`;

export const GROUND_FRAGMENT = `#version 300 es
precision highp float;
in vec2 place;
uniform float reach;
uniform float cell;
uniform vec2 foot;     // half the width and depth of what stands there
uniform vec3 ink;
uniform float lines;   // 0 or 1
out vec4 shown;
float line(float at, float every) {
  float x = at / every;
  float width = fwidth(x);
  return (1.0 - smoothstep(0.0, 1.3 * width, abs(fract(x - 0.5) - 0.5))) * (1.0 - smoothstep(0.3, 0.9, width));
}
void main() {
  float fade = 1.0 - smoothstep(0.25, 1.0, length(place) / reach);
  float fine = max(line(place.x, cell), line(place.y, cell)) * 0.16;
  float coarse = max(line(place.x, cell * 5.0), line(place.y, cell * 5.0)) * 0.30;
  float grid = max(fine, coarse) * fade * lines;
  float under = exp(-2.2 * dot(place / foot, place / foot)) * 0.30;
  shown = vec4(mix(ink, vec3(0.0), under / max(under + grid, 0.001)), max(grid, under));
}`;
