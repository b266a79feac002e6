// Draws one mesh and lets a person turn it: by mouse, touch or keys. It draws when something changes, and else rests.

import { axes, multiply, orthographic, perspective, viewMatrix } from "./matrix.js";
import { GROUND_FRAGMENT, GROUND_VERTEX, LINE_FRAGMENT, LINE_VERTEX, MESH_FRAGMENT, MESH_VERTEX } from "./shaders.js";

export const MODES = ["color", "clay", "normals", "wire", "outline"];
const FIELD_OF_VIEW = (32 * Math.PI) / 180;
/** How much of the canvas the picture under an outline takes; studio.css has the same. */
const PICTURE_SHARE = 0.78;
const START = { azimuth: 0.55, elevation: 0.3 };
const INKS = { light: [0.35, 0.32, 0.29], dark: [0.78, 0.75, 0.7] };
const WIRES = { light: [0.16, 0.14, 0.12, 0.55], dark: [1, 0.97, 0.92, 0.45] };
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

export class Viewer {
  /** canvas : where it draws; onTurn : told when the camera has moved. Throws Error without WebGL 2. */
  constructor(canvas, { onTurn = () => {} } = {}) {
    this.canvas = canvas;
    this.onTurn = onTurn;
    this.mode = "color";
    this.grid = true;
    this.shade = "light";
    this.mesh = null;
    this.fit = null;
    this.camera = { ...START, distance: 3, target: [0, 0, 0] };
    canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
    canvas.addEventListener("webglcontextrestored", () => (this.#open(), this.source && this.setMesh(this.source, true)));
    this.#open();
    this.#listen();
    this.observer = new ResizeObserver(() => this.draw());
    this.observer.observe(canvas);
  }

  /** Show a mesh as readGlb returns it. keeps : whether the camera stays where it is */
  setMesh(source, keeps = false) {
    const { gl } = this;
    this.source = source;
    delete this.canvas.dataset.drawn;
    this.#drop();
    const [low, high] = source.bounds;
    const middle = low.map((value, axis) => (value + high[axis]) / 2);
    const radius = Math.hypot(...high.map((value, axis) => value - low[axis])) / 2 || 1;
    const array = gl.createVertexArray();
    gl.bindVertexArray(array);
    const buffers = [];
    const attribute = (location, data, size, type = gl.FLOAT, normalized = false) => {
      if (!data) return;
      const buffer = gl.createBuffer();
      buffers.push(buffer);
      gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
      gl.bufferData(gl.ARRAY_BUFFER, data, gl.STATIC_DRAW);
      gl.enableVertexAttribArray(location);
      gl.vertexAttribPointer(location, size, type, normalized, 0, 0);
    };
    attribute(0, source.positions, 3);
    attribute(1, source.normals, 3);
    attribute(2, source.uv, 2);
    if (source.colors) {
      const types = { Uint16Array: gl.UNSIGNED_SHORT, Uint8Array: gl.UNSIGNED_BYTE, Float32Array: gl.FLOAT };
      const { data, size, normalized } = source.colors;
      attribute(3, data, size, types[data.constructor.name], normalized);
    }
    const indices = gl.createBuffer();
    buffers.push(indices);
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, indices);
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, source.indices, gl.STATIC_DRAW);
    gl.bindVertexArray(null);
    const texture = source.texture ? this.#texture(source.texture) : null;
    this.mesh = { array, buffers, texture, count: source.indices.length, low, high, middle, radius, lines: null };
    if (!keeps) this.reset();
    this.draw();
  }

  /** Look at all of it from three quarters. */
  reset() {
    this.camera = { ...START, distance: 0, target: [...(this.mesh?.middle ?? [0, 0, 0])] };
    this.camera.distance = this.#wholeDistance();
    this.#turned();
  }

  /** Look as another viewer does, whatever the size of its mesh. */
  lookLike(other) {
    const ratio = (this.mesh?.radius ?? 1) / (other.mesh?.radius ?? 1);
    const shift = other.camera.target.map((value, axis) => (value - (other.mesh?.middle[axis] ?? 0)) * ratio);
    this.camera = {
      ...other.camera,
      distance: other.camera.distance * ratio,
      target: shift.map((value, axis) => value + (this.mesh?.middle[axis] ?? 0)),
    };
    this.draw();
  }

  set(changes) {
    Object.assign(this, changes);
    this.draw();
  }

  /**
   * Look as the camera did that took the picture. camera : degrees {azimuth, elevation, field_of_view}
   * box : where the object lies in the picture, [left, top, right, bottom] from 0 to 1; aspect : width by height of it
   */
  matchPicture(camera, box, aspect) {
    const radians = Math.PI / 180;
    const frame = axes(camera.azimuth * radians, camera.elevation * radians);
    const { middle, radius } = this.mesh;
    const far = camera.field_of_view ? radius / Math.sin((camera.field_of_view * radians) / 2) : radius * 4;
    const view = viewMatrix(frame, middle, far);
    const near = Math.max(far - 1.1 * radius, far * 0.01);
    const plain = camera.field_of_view
      ? perspective(camera.field_of_view * radians, 1, near, far + 2 * radius)
      : orthographic(radius, radius, near, far + 2 * radius);
    this.fit = { matrix: multiply(plain, view), box, aspect, frame };
    this.fit.seen = this.#projectedBox(this.fit.matrix);
    this.draw();
  }

  /** Return what is shown as a PNG, on a background of a CSS colour. */
  async screenshot(background) {
    this.#render();
    const { width, height } = this.canvas;
    const flat = Object.assign(document.createElement("canvas"), { width, height });
    const context = flat.getContext("2d");
    context.fillStyle = background;
    context.fillRect(0, 0, width, height);
    context.drawImage(this.canvas, 0, 0);
    return new Promise((resolve) => flat.toBlob(resolve, "image/png"));
  }

  /** Draw before the next frame. */
  draw() {
    if (this.pending || this.isClosed) return;
    this.pending = requestAnimationFrame(() => {
      this.pending = 0;
      this.#render();
    });
  }

  close() {
    this.isClosed = true;
    this.observer.disconnect();
    cancelAnimationFrame(this.pending);
    this.#drop();
    this.gl.getExtension("WEBGL_lose_context")?.loseContext();
  }

  #open() {
    const gl = this.canvas.getContext("webgl2", { antialias: true, alpha: true, powerPreference: "low-power" });
    if (!gl) throw new Error("WebGL 2");
    this.gl = gl;
    this.programs = {
      mesh: program(gl, MESH_VERTEX, MESH_FRAGMENT),
      line: program(gl, LINE_VERTEX, LINE_FRAGMENT),
      ground: program(gl, GROUND_VERTEX, GROUND_FRAGMENT),
    };
    this.plane = gl.createVertexArray();
    gl.bindVertexArray(this.plane);
    gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ARRAY_BUFFER, new Float32Array([-1, -1, 1, -1, -1, 1, 1, 1]), gl.STATIC_DRAW);
    gl.enableVertexAttribArray(0);
    gl.vertexAttribPointer(0, 2, gl.FLOAT, false, 0, 0);
    gl.bindVertexArray(null);
    this.mesh = null;
  }

  #texture(image) {
    const { gl } = this;
    const texture = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, texture);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.SRGB8_ALPHA8, gl.RGBA, gl.UNSIGNED_BYTE, image);
    gl.generateMipmap(gl.TEXTURE_2D);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.LINEAR_MIPMAP_LINEAR);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE);
    return texture;
  }

  #drop() {
    const { gl, mesh } = this;
    if (!mesh) return;
    for (const buffer of [...mesh.buffers, ...(mesh.lines ? [mesh.lines.buffer] : [])]) gl.deleteBuffer(buffer);
    gl.deleteVertexArray(mesh.array);
    if (mesh.lines) gl.deleteVertexArray(mesh.lines.array);
    if (mesh.texture) gl.deleteTexture(mesh.texture);
    this.mesh = null;
  }

  #wholeDistance() {
    const aspect = this.canvas.clientWidth / Math.max(this.canvas.clientHeight, 1) || 1;
    const half = Math.min(FIELD_OF_VIEW / 2, Math.atan(Math.tan(FIELD_OF_VIEW / 2) * aspect));
    return (1.08 * (this.mesh?.radius ?? 1)) / Math.sin(half);
  }

  #matrices() {
    const { width, height } = this.canvas;
    const { azimuth, elevation, distance, target } = this.camera;
    if (this.mode === "outline" && this.fit) return { transform: this.#fitted(width / height), frame: this.fit.frame };
    const frame = axes(azimuth, elevation);
    const far = distance + 12 * this.mesh.radius;
    const near = Math.max(distance - 2.5 * this.mesh.radius, distance / 50);
    const plain = perspective(FIELD_OF_VIEW, width / height, near, far);
    return { transform: multiply(plain, viewMatrix(frame, target, distance)), frame };
  }

  /** Return the picture's camera with the mesh's outline laid over the object's, in a canvas that holds the picture. */
  #fitted(canvasAspect) {
    const { matrix, seen, box, aspect } = this.fit;
    const wide = PICTURE_SHARE * Math.min(1, aspect / canvasAspect);
    const tall = PICTURE_SHARE * Math.min(1, canvasAspect / aspect);
    const [left, right] = [(2 * box[0] - 1) * wide, (2 * box[2] - 1) * wide];
    const [bottom, top] = [(1 - 2 * box[3]) * tall, (1 - 2 * box[1]) * tall];
    const sx = (right - left) / (seen[2] - seen[0]);
    const sy = (top - bottom) / (seen[3] - seen[1]);
    const scale = (sx * canvasAspect + sy) / 2;
    const lay = new Float32Array([
      scale / canvasAspect, 0, 0, 0, 0, scale, 0, 0, 0, 0, 1, 0,
      (left + right) / 2 - ((seen[0] + seen[2]) / 2) * (scale / canvasAspect),
      (bottom + top) / 2 - ((seen[1] + seen[3]) / 2) * scale, 0, 1,
    ]);
    return multiply(lay, matrix);
  }

  #projectedBox(m) {
    const { positions } = this.source;
    const box = [Infinity, Infinity, -Infinity, -Infinity];
    for (let k = 0; k < positions.length; k += 3) {
      const [x, y, z] = [positions[k], positions[k + 1], positions[k + 2]];
      const w = m[3] * x + m[7] * y + m[11] * z + m[15];
      const u = (m[0] * x + m[4] * y + m[8] * z + m[12]) / w;
      const v = (m[1] * x + m[5] * y + m[9] * z + m[13]) / w;
      if (u < box[0]) box[0] = u;
      if (v < box[1]) box[1] = v;
      if (u > box[2]) box[2] = u;
      if (v > box[3]) box[3] = v;
    }
    return box;
  }

  #render() {
    const { gl, canvas, mesh } = this;
    if (gl.isContextLost()) return;
    const scale = Math.min(devicePixelRatio || 1, 2);
    const [width, height] = [canvas.clientWidth, canvas.clientHeight].map((side) => Math.max(1, Math.round(side * scale)));
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    gl.viewport(0, 0, width, height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    if (!mesh) return;
    gl.enable(gl.DEPTH_TEST);
    gl.enable(gl.BLEND);
    gl.blendFuncSeparate(gl.SRC_ALPHA, gl.ONE_MINUS_SRC_ALPHA, gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    const matrices = this.#matrices();
    this.#drawMesh(matrices);
    if (this.mode === "wire") this.#drawLines(matrices.transform);
    if (this.mode !== "outline") this.#drawGround(matrices);
    if (canvas.dataset.drawn) return;
    // Whoever measures wants the time when it is there, not when it is on its way.
    gl.finish();
    canvas.dataset.drawnAt = String(performance.now());
    canvas.dataset.drawn = String(mesh.count / 3);
  }

  #drawMesh({ transform, frame }) {
    const { gl, mesh, source, mode } = this;
    const { mesh: program_ } = this.programs;
    gl.useProgram(program_.program);
    const at = program_.at;
    gl.uniformMatrix4fv(at("transform"), false, transform);
    gl.uniformMatrix3fv(at("camera"), false, frame.flat());
    gl.uniform1i(at("mode"), { color: 0, clay: 1, normals: 2, wire: 1, outline: 3 }[mode]);
    gl.uniform1i(at("source"), mesh.texture ? 2 : source.colors ? 1 : 0);
    gl.uniform4fv(at("flatColor"), mode === "outline" ? [0.94, 0.42, 0.18, 1] : source.baseColor);
    gl.uniform3fv(at("clay"), mode === "wire" && this.shade === "dark" ? [0.1, 0.095, 0.09] : [0.62, 0.57, 0.52]);
    gl.activeTexture(gl.TEXTURE0);
    gl.bindTexture(gl.TEXTURE_2D, mesh.texture);
    gl.uniform1i(at("image"), 0);
    gl.enable(gl.POLYGON_OFFSET_FILL);
    gl.polygonOffset(1, 1);
    gl.bindVertexArray(mesh.array);
    gl.drawElements(gl.TRIANGLES, mesh.count, gl.UNSIGNED_INT, 0);
    gl.disable(gl.POLYGON_OFFSET_FILL);
  }

  #drawLines(transform) {
    const { gl, mesh } = this;
    mesh.lines ??= this.#makeLines();
    const { line } = this.programs;
    gl.useProgram(line.program);
    gl.uniformMatrix4fv(line.at("transform"), false, transform);
    gl.uniform4fv(line.at("flatColor"), WIRES[this.shade]);
    gl.bindVertexArray(mesh.lines.array);
    gl.drawElements(gl.LINES, mesh.lines.count, gl.UNSIGNED_INT, 0);
  }

  #makeLines() {
    const { gl, mesh, source } = this;
    const { indices } = source;
    const edges = new Uint32Array(indices.length * 2);
    let count = 0;
    for (let k = 0; k < indices.length; k += 3)
      for (let side = 0; side < 3; side += 1) {
        const [from, to] = [indices[k + side], indices[k + ((side + 1) % 3)]];
        // Each edge of a closed mesh is walked in both directions; where a texture cuts it, it is two.
        if (from < to || source.uv) (edges[count] = from), (edges[count + 1] = to), (count += 2);
      }
    const array = gl.createVertexArray();
    const buffer = gl.createBuffer();
    gl.bindVertexArray(array);
    gl.bindBuffer(gl.ARRAY_BUFFER, mesh.buffers[0]);
    gl.enableVertexAttribArray(0);
    gl.vertexAttribPointer(0, 3, gl.FLOAT, false, 0, 0);
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, buffer);
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, edges.subarray(0, count), gl.STATIC_DRAW);
    gl.bindVertexArray(null);
    return { array, buffer, count };
  }

  /** The side of a cell of the grid, metres: one, two or five times a power of ten, so that the mesh covers a few. */
  get cell() {
    const longest = Math.max(...this.mesh.high.map((value, axis) => value - this.mesh.low[axis]));
    const power = 10 ** Math.floor(Math.log10(longest / 6));
    return [1, 2, 5, 10].map((step) => step * power).find((step) => longest / step <= 8);
  }

  #drawGround({ transform }) {
    const { gl, mesh } = this;
    const { ground } = this.programs;
    const { at } = ground;
    gl.useProgram(ground.program);
    gl.depthMask(false);
    gl.uniformMatrix4fv(at("transform"), false, transform);
    gl.uniform3f(at("middle"), mesh.middle[0], mesh.low[1] - mesh.radius * 0.002, mesh.middle[2]);
    gl.uniform1f(at("reach"), mesh.radius * 3.6);
    gl.uniform1f(at("cell"), this.cell);
    const foot = [0, 2].map((axis) => Math.max((mesh.high[axis] - mesh.low[axis]) * 0.62, mesh.radius * 0.08));
    gl.uniform2fv(at("foot"), foot);
    gl.uniform3fv(at("ink"), INKS[this.shade]);
    gl.uniform1f(at("lines"), this.grid ? 1 : 0);
    gl.bindVertexArray(this.plane);
    gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4);
    gl.depthMask(true);
  }

  #turned() {
    this.draw();
    this.onTurn(this);
  }

  turn(dx, dy) {
    this.camera.azimuth -= dx;
    this.camera.elevation = clamp(this.camera.elevation + dy, -1.5, 1.5);
    this.#turned();
  }

  /** Move sideways and up, in shares of the view's height. */
  pan(dx, dy) {
    const [right, up] = axes(this.camera.azimuth, this.camera.elevation);
    const size = 2 * this.camera.distance * Math.tan(FIELD_OF_VIEW / 2);
    this.camera.target = this.camera.target.map((value, k) => value - (right[k] * dx - up[k] * dy) * size);
    this.#turned();
  }

  zoom(factor) {
    const whole = this.#wholeDistance();
    this.camera.distance = clamp(this.camera.distance * factor, whole * 0.15, whole * 4);
    this.#turned();
  }

  #listen() {
    const { canvas } = this;
    const pointers = new Map();
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, [event.clientX, event.clientY]);
    });
    for (const end of ["pointerup", "pointercancel"])
      canvas.addEventListener(end, (event) => pointers.delete(event.pointerId));
    canvas.addEventListener("pointermove", (event) => {
      const before = pointers.get(event.pointerId);
      if (!before) return;
      const others = [...pointers].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
      const [dx, dy] = [event.clientX - before[0], event.clientY - before[1]];
      pointers.set(event.pointerId, [event.clientX, event.clientY]);
      const height = canvas.clientHeight;
      if (others.length) {
        const apart = ([x, y]) => Math.hypot(x - others[0][0], y - others[0][1]) || 1;
        this.zoom(apart(before) / apart([event.clientX, event.clientY]));
        this.pan(dx / height / 2, dy / height / 2);
      } else if (event.buttons & 6 || event.shiftKey) this.pan(dx / height, dy / height);
      else this.turn((dx / height) * 3.6, (dy / height) * 3);
    });
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("wheel", (event) => (event.preventDefault(), this.zoom(Math.exp(event.deltaY * 0.0012))), {
      passive: false,
    });
    canvas.addEventListener("dblclick", () => this.reset());
    canvas.addEventListener("keydown", (event) => this.#press(event));
  }

  #press(event) {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in steps) {
      const [x, y] = steps[event.key];
      if (event.shiftKey) this.pan(-x * 0.05, -y * 0.05);
      else this.turn(-x * 0.15, -y * 0.12);
    } else if (event.key === "+" || event.key === "=") this.zoom(0.85);
    else if (event.key === "-") this.zoom(1 / 0.85);
    else if (event.key === "0" || event.key === "Home") this.reset();
    else return;
    event.preventDefault();
  }
}

function program(gl, vertex, fragment) {
  const made = gl.createProgram();
  for (const [kind, text] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, text);
    gl.compileShader(shader);
    gl.attachShader(made, shader);
  }
  gl.linkProgram(made);
  if (!gl.getProgramParameter(made, gl.LINK_STATUS) && !gl.isContextLost()) throw new Error(gl.getProgramInfoLog(made));
  const places = new Map();
  const at = (name) => places.get(name) ?? (places.set(name, gl.getUniformLocation(made, name)), places.get(name));
  return { program: made, at };
}
