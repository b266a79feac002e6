// The first page: pictures come in, are cut out to look at, and are sent to be made into meshes.

import { h, icon } from "./dom.js";
import { form } from "./form.js";
import { bytes, problem, t, warning } from "./i18n.js";
import { jobCards } from "./gallery.js";
import { optionFields } from "./options.js";

const MOST_BYTES = 50_000_000;
const MOST_PICTURES = 10;
const VIEWS = ["front", "left", "back", "right"];
const TAKEN = "image/png,image/jpeg,image/webp,image/avif,image/gif,image/bmp,image/tiff,image/heic,.heic";

export function makePage(app) {
  return new MakePage(app);
}

class MakePage {
  constructor(app) {
    this.app = app;
    this.title = t("make.title");
    this.control = new AbortController();
    this.can = app.me.capabilities;
    this.items = app.unsent;
    this.views = {};
    this.kind = "pictures";
    this.options = optionFields(this.can);
    this.recent = jobCards(app, { limit: 8, quiet: true });
    this.button = h("button", { class: "main big", on: { click: () => this.#send() } });
    this.said = h("p", { class: "said bad", role: "alert", hidden: true });
    this.input = h("div", { class: "input" });
    this.panel = h(
      "div", { class: "panel" },
      h("details", { class: "fold" }, h("summary", {}, t("opt.title")), this.options.element),
      this.said, this.button,
    );
    this.element = h(
      "section", { class: "make" },
      h("h1", {}, t("make.title")),
      h("p", { class: "lead" }, t("make.lead")),
      this.#kinds(), this.input, this.panel,
      h("section", { class: "recent" }, this.recent.element),
    );
    this.paste = (event) => this.#take(event.clipboardData?.files);
    this.over = (event) => event.preventDefault();
    this.drop = (event) => (event.preventDefault(), this.#take(event.dataTransfer?.files));
    document.addEventListener("paste", this.paste);
    document.addEventListener("dragover", this.over);
    document.addEventListener("drop", this.drop);
    this.#draw();
  }

  close() {
    this.control.abort();
    this.recent.close();
    document.removeEventListener("paste", this.paste);
    document.removeEventListener("dragover", this.over);
    document.removeEventListener("drop", this.drop);
  }

  /** The kinds of input, where there is more than one. */
  #kinds() {
    const kinds = ["pictures", ...(this.can.views ? ["views"] : []), ...(this.can.prompt ? ["words"] : [])];
    if (kinds.length < 2) return null;
    const choose = (event) => ((this.kind = event.target.value), this.#draw());
    return h(
      "fieldset", { class: "segments" }, h("legend", { class: "unseen" }, t("make.kind")),
      kinds.map((kind) => h("label", {}, h("input", { type: "radio", name: "kind", value: kind, checked: kind === this.kind, on: { change: choose } }), h("span", {}, t(`kind.${kind}`)))),
    );
  }

  #draw() {
    const drawings = { pictures: () => this.#pictures(), views: () => this.#slots(), words: () => this.#words() };
    this.input.replaceChildren(drawings[this.kind]());
    this.#update();
  }

  #update() {
    const n = this.kind === "pictures" ? this.items.filter((item) => !item.refused).length : 1;
    const ready = this.kind === "pictures" ? n > 0 : this.kind === "views" ? Boolean(this.views.front || Object.keys(this.views).length) : Boolean(this.words?.value.trim());
    this.panel.hidden = !ready;
    this.button.textContent = t("make.go", { n });
  }

  #chooser(many, done, capture = false) {
    return h("input", {
      type: "file", accept: capture ? "image/*" : TAKEN, multiple: many, class: "unseen", tabindex: "-1", "aria-hidden": "true",
      capture: capture ? "environment" : null,
      on: { change: (event) => (done(event.target.files), (event.target.value = "")) },
    });
  }

  #pictures() {
    const take = (files) => this.#take(files);
    const [files, photo] = [this.#chooser(true, take), this.#chooser(false, take, true)];
    files.id = "files";
    const choose = h("button", { class: this.items.length ? "" : "main", on: { click: () => files.click() } }, this.items.length ? t("make.more") : t("make.choose"));
    const shoot = h("button", { class: "photo", on: { click: () => photo.click() } }, icon("camera"), t("make.photo"));
    const zone = h(
      "div", { class: `drop ${this.items.length ? "small" : ""}` },
      this.items.length ? null : h("div", { class: "drop-art", "aria-hidden": "true" }, icon("picture")),
      this.items.length ? null : h("p", { class: "drop-title" }, t("make.drop")),
      h("div", { class: "row middle" }, choose, shoot), files, photo,
      this.items.length ? null : h("p", { class: "fine" }, t("make.bounds", { size: bytes(MOST_BYTES), most: MOST_PICTURES })),
    );
    for (const [event, on] of [["dragenter", true], ["dragover", true], ["dragleave", false], ["drop", false]])
      zone.addEventListener(event, () => zone.classList.toggle("over", on));
    const cards = this.items.map((item) => this.#card(item));
    return h("div", {}, cards.length ? h("ul", { class: "pictures", "aria-label": t("make.pictures") }, cards) : null, zone);
  }

  #card(item) {
    const remove = () => {
      this.items.splice(this.items.indexOf(item), 1);
      this.#draw();
      this.element.querySelector(".drop button").focus();
    };
    item.card = h("li", { class: "picture" });
    item.draw = () => {
      const address = item.cutout ?? item.address;
      const doubt = item.refused ?? item.warnings?.map(warning).join(" ");
      const state = item.refused ? "bad" : item.warnings?.length ? "doubt" : item.cutout ? "good" : "busy";
      const words = doubt || (item.cutout ? t("cutout.good") : t("cutout.busy"));
      item.card.replaceChildren(
        h("div", { class: `thumb ${item.cutout ? "clear" : ""}` }, h("img", { src: address, alt: item.cutout ? t("cutout.alt", { name: item.file.name }) : item.file.name, on: { error: (event) => event.target.classList.add("gone") } })),
        h("div", { class: "about" }, h("strong", {}, item.file.name), h("p", { class: `state ${state}`, role: "status" }, state === "busy" ? null : icon(state === "good" ? "check" : "warn"), words)),
        h("button", { class: "quiet round", "aria-label": t("make.remove", { name: item.file.name }), on: { click: remove } }, icon("close")),
      );
    };
    item.draw();
    if (!item.asked) this.#cut(item);
    return item.card;
  }

  #take(list) {
    const files = [...(list ?? [])].filter((file) => file.type.startsWith("image/") || /\.(heic|tiff?|avif)$/i.test(file.name));
    if (!files.length) {
      if (list?.length) this.#say(t("make.not_picture"));
      return;
    }
    this.kind = "pictures";
    const room = MOST_PICTURES - this.items.length;
    this.#say(files.length > room ? t("make.too_many", { most: MOST_PICTURES }) : "");
    for (const file of files.slice(0, room)) {
      const refused = file.size > MOST_BYTES ? t("make.too_large", { size: bytes(file.size), most: bytes(MOST_BYTES) }) : undefined;
      this.items.push({ file, refused, asked: Boolean(refused), address: URL.createObjectURL(file) });
    }
    this.#draw();
    if (!this.panel.hidden) this.button.focus({ preventScroll: true });
  }

  #say(text) {
    this.said.textContent = text;
    this.said.hidden = !text;
    if (text && this.panel.hidden) this.app.problem(new Error(text));
  }

  /** Have a picture cut out, to be looked at before anything is made. */
  async #cut(item) {
    item.asked = true;
    // One at a time: the service cuts two at once, for everybody.
    const before = this.cutting ?? Promise.resolve();
    this.cutting = before.then(async () => {
      if (this.control.signal.aborted) return (item.asked = false);
      try {
        const said = await this.app.client.json("POST", "/cutout", { ...form([["image", item.file]]), signal: this.control.signal });
        item.warnings = said.warnings;
        item.cutout = URL.createObjectURL(await this.app.client.file(said.cutout_url));
      } catch (error) {
        if (this.control.signal.aborted) return (item.asked = false);
        if (["INVALID_IMAGE", "UNSUPPORTED_IMAGE", "FILE_TOO_LARGE"].includes(error.code)) item.refused = problem(error);
        else item.warnings = [{ code: error.code, message: problem(error) }];
      }
      if (item.card.isConnected) (item.draw(), this.#update());
    });
  }

  #slots() {
    const slot = (view) => {
      const take = ([file]) => (file && (this.views[view] = file), this.#draw());
      const chooser = this.#chooser(false, take);
      const file = this.views[view];
      const image = file ? h("img", { src: URL.createObjectURL(file), alt: file.name }) : icon("plus");
      return h("li", {}, h("button", { class: "slot", on: { click: () => chooser.click() } }, h("span", { class: "thumb" }, image), h("span", {}, t(`view.${view}`))), chooser);
    };
    return h("div", {}, h("ul", { class: "slots" }, VIEWS.map(slot)), h("p", { class: "fine" }, t("view.hint")));
  }

  #words() {
    this.words ??= h("textarea", { id: "words", rows: 3, maxlength: 1000, placeholder: t("words.example"), on: { input: () => this.#update() } });
    return h("div", { class: "words" }, h("label", { htmlFor: "words" }, t("words.label")), this.words);
  }

  /** Send what is there: one picture, several as a batch, views of one object, or words. */
  async #send() {
    if (!this.options.isValid()) return;
    this.button.disabled = true;
    const good = this.items.filter((item) => !item.refused);
    const name = (file) => file.name.replace(/\.[^.]*$/, "").slice(0, 200);
    const fields = this.options.read();
    try {
      if (this.kind === "pictures" && good.length > 1) {
        const label = good.map((item) => name(item.file)).join(", ").slice(0, 200);
        const parts = good.map((item) => ["images", item.file]);
        const said = await this.#submit("/batch", [...fields, ["label", label], ["accept_partial", "true"], ...parts]);
        said.job_ids.forEach((jobId, k) => this.app.pictures.set(jobId, good[k].cutout ?? good[k].address));
        this.#sent("#/gallery");
      } else {
        const parts = { pictures: () => [["image", good[0].file], ["label", name(good[0].file)]], views: () => this.#viewParts(name), words: () => [["prompt", this.words.value.trim()], ["label", this.words.value.trim().slice(0, 200)]] }[this.kind]();
        const said = await this.#submit("/generate-3d", [...fields, ["async", "true"], ...parts]);
        if (this.kind === "pictures") this.app.pictures.set(said.job_id, good[0].cutout ?? good[0].address);
        this.#sent(`#/job/${said.job_id}`);
      }
    } catch (error) {
      this.#say(problem(error));
      this.button.disabled = false;
    }
  }

  #viewParts(name) {
    const given = VIEWS.filter((view) => this.views[view]);
    return [...given.map((view) => [`view_${view}`, this.views[view]]), ["label", name(this.views[given[0]])]];
  }

  #submit(path, parts) {
    const sent = form(parts);
    // Sent again after a failure, it is the same request: nothing is made twice.
    const headers = { ...sent.headers, "Idempotency-Key": crypto.randomUUID() };
    const wait = (error) => this.#say(problem(error));
    return this.app.client.patiently("POST", path, { body: sent.body, headers, signal: this.control.signal }, wait);
  }

  #sent(hash) {
    this.items.length = 0;
    this.app.go(hash);
  }
}
