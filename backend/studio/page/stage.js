// A viewer with what stands around it: ways to look, ground, background, picture of it.

import { local } from "./api.js";
import { h, icon, save, toast } from "./dom.js";
import { GlbError, readGlb } from "./glb.js";
import { number, t } from "./i18n.js";
import { MODES, Viewer } from "./viewer.js";

const SHADES = { light: "#f3f1ec", dark: "#1b1a18" };
const isDark = () => matchMedia("(prefers-color-scheme: dark)").matches;

/** Return the files of one of a job's candidates; what has one alone does not number it. */
export const filesOf = (job, candidate = 0) => job.files.filter((file) => (file.candidate ?? 0) === candidate);

/** Return a stage. name : what is shown, for screen readers; plain : only the viewer, for comparing */
export class Stage {
  constructor(app, name, { plain = false, onTurn } = {}) {
    this.app = app;
    this.name = name;
    this.canvas = h("canvas", { tabindex: "0", role: "application", "aria-label": t("view.canvas", { name }), "aria-describedby": "keys" });
    this.under = h("img", { class: "under", alt: "", hidden: true });
    this.note = h("p", { class: "stage-note", role: "status" });
    this.scale = h("p", { class: "scale", hidden: true });
    this.tools = h("div", { class: "tools", hidden: true });
    this.element = h("div", { class: "stage" }, this.under, this.canvas, this.note, this.scale, this.tools, h("p", { class: "unseen", id: "keys" }, t("view.keys")));
    this.shade = isDark() ? "dark" : "light";
    this.element.dataset.shade = this.shade;
    try {
      this.viewer = new Viewer(this.canvas, { onTurn });
      this.viewer.shade = this.shade;
    } catch {
      this.note.textContent = t("view.no_webgl");
    }
    if (!plain) this.#drawTools();
  }

  close() {
    this.viewer?.close();
  }

  /** Fetch a finished job's GLB and show it. candidate : which of several that were made to choose from */
  async show(job, candidate = 0) {
    if (!this.viewer) return;
    this.note.textContent = t("view.loading");
    const file = filesOf(job, candidate).find((each) => each.format === "glb");
    try {
      const address = file ? local(file.signed_url ?? file.url) : null;
      if (!address) throw new GlbError("none");
      const blob = file.signed_url ? await (await fetch(address)).blob() : await this.app.client.file(address);
      this.viewer.setMesh(await readGlb(await blob.arrayBuffer()));
      this.note.textContent = "";
      this.tools.hidden = false;
      this.scale.hidden = false;
      this.scale.textContent = t("view.cell", { size: `${number(this.viewer.cell * 1000, 1)} mm` });
      await this.#placePicture(job);
    } catch (error) {
      this.note.textContent = error instanceof GlbError ? t("view.compressed") : t("view.failed");
    }
  }

  /** Lay the picture that the model saw under the mesh, for the outline. */
  async #placePicture(job) {
    const camera = job.metadata?.camera;
    const address = job.cutout_url ?? job.image_url;
    if (!camera || !job.cutout_url) return;
    const image = await createImageBitmap(await this.app.client.file(address));
    this.under.src = await asAddress(image);
    this.viewer.matchPicture(camera, objectBox(image), image.width / image.height);
    this.element.querySelector("[value=outline]")?.closest("label").removeAttribute("hidden");
  }

  #drawTools() {
    const viewer = this.viewer;
    if (!viewer) return;
    const choose = (event) => {
      viewer.set({ mode: event.target.value });
      this.under.hidden = event.target.value !== "outline";
    };
    const group = `mode-${crypto.randomUUID()}`;
    const modes = MODES.map((mode) => h("label", { hidden: mode === "outline" }, h("input", { type: "radio", name: group, value: mode, checked: mode === "color", on: { change: choose } }), h("span", {}, t(`mode.${mode}`))));
    const tool = (drawing, text, act, pressed) => h("button", { class: "round quiet", title: text, "aria-label": text, "aria-pressed": pressed, on: { click: act } }, icon(drawing));
    const toggleGrid = (event) => {
      viewer.set({ grid: !viewer.grid });
      this.scale.hidden = !viewer.grid;
      event.currentTarget.setAttribute("aria-pressed", String(viewer.grid));
    };
    const toggleShade = () => {
      this.shade = this.shade === "dark" ? "light" : "dark";
      this.element.dataset.shade = this.shade;
      viewer.set({ shade: this.shade });
    };
    const shoot = async () => {
      save(await viewer.screenshot(SHADES[this.shade]), `${this.name}.png`);
      toast(t("view.saved"));
    };
    this.tools.append(
      h("fieldset", { class: "segments small" }, h("legend", { class: "unseen" }, t("view.mode")), modes),
      h("div", { class: "buttons" }, tool("reset", t("view.reset"), () => viewer.reset()), tool("grid", t("view.grid"), toggleGrid, "true"), tool("shade", t("view.shade"), toggleShade), tool("shot", t("view.shot"), shoot)),
    );
  }
}

/** Return where the opaque part of an image lies, [left, top, right, bottom] from 0 to 1. */
function objectBox(image) {
  const side = 256;
  const canvas = new OffscreenCanvas(side, side);
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0, side, side);
  const { data } = context.getImageData(0, 0, side, side);
  const box = [side, side, 0, 0];
  for (let k = 3; k < data.length; k += 4) {
    if (data[k] < 128) continue;
    const [x, y] = [((k - 3) / 4) % side, Math.floor((k - 3) / 4 / side)];
    box[0] = Math.min(box[0], x);
    box[1] = Math.min(box[1], y);
    box[2] = Math.max(box[2], x + 1);
    box[3] = Math.max(box[3], y + 1);
  }
  return box.map((edge) => edge / side);
}

async function asAddress(image) {
  const canvas = new OffscreenCanvas(image.width, image.height);
  canvas.getContext("2d").drawImage(image, 0, 0);
  return URL.createObjectURL(await canvas.convertToBlob());
}
