// One job: waited for while it is made, then turned, read about and taken away. And several side by side.

import { local } from "./api.js";
import { h, icon, save, toast } from "./dom.js";
import { facts, sizeOf, stages, warnings } from "./facts.js";
import { isFinished } from "./follow.js";
import { form } from "./form.js";
import { stateOf, titleOf } from "./gallery.js";
import { bytes, number, problem, t } from "./i18n.js";
import { curl, python } from "./recipes.js";
import { Stage } from "./stage.js";
import { signedImage } from "./thumbs.js";

export function jobPage(app, jobId) {
  return new JobPage(app, jobId);
}

class JobPage {
  constructor(app, jobId) {
    this.app = app;
    this.jobId = jobId;
    this.title = t("job.title");
    this.live = h("p", { class: "unseen", role: "status", "aria-live": "polite" });
    this.body = h("div", { class: "job" }, h("p", { class: "lone" }, t("job.loading")));
    this.element = h("section", {}, this.live, this.body);
    this.kind = "";
    app.follower.watch(jobId, (job) => this.#update(job), (error, isFinal) => this.#lost(error, isFinal));
  }

  close() {
    this.app.follower?.forget(this.jobId);
    this.stage?.close();
  }

  #lost(error, isFinal) {
    if (isFinal) this.body.replaceChildren(h("div", { class: "lone" }, h("h1", {}, t("job.gone")), h("p", {}, problem(error)), h("a", { href: "#/gallery", class: "button" }, t("nav.gallery"))));
    else if (this.words) this.words.textContent = t("job.lost");
  }

  #update(job) {
    this.job = job;
    this.title = titleOf(job);
    document.title = `${this.title} – Orfeas Studio`;
    const kind = !isFinished(job) ? "busy" : job.status === "completed" ? "done" : "over";
    if (kind !== this.kind) {
      if (kind !== "busy" && this.kind === "busy") this.live.textContent = `${this.title}: ${stateOf(job)}`;
      this.kind = kind;
      ({ busy: () => this.#drawBusy(), done: () => this.#drawDone(), over: () => this.#drawOver() })[kind]();
    }
    if (kind === "busy") this.#progress();
  }

  // While it is made

  #drawBusy() {
    this.words = h("p", { class: "step" });
    this.bar = h("progress", { max: 100, "aria-label": t("job.progress", { name: this.title }) });
    this.percent = h("span", { class: "percent", "aria-hidden": "true" });
    this.cancel = h("button", { on: { click: () => this.#cancel() } }, t("job.cancel"));
    this.picture = h("div", { class: "waiting-picture" });
    this.body.replaceChildren(h("div", { class: "waiting" }, this.picture, h("h1", {}, this.title), h("div", { class: "row" }, this.words, this.percent), this.bar, h("p", { class: "fine" }, t("job.leave")), this.cancel));
  }

  #progress() {
    const { job } = this;
    const address = job.cutout_url ?? job.image_url;
    const own = this.app.pictures.get(this.jobId);
    this.picture.hidden = !address && !own;
    if (!this.picture.hidden && !this.picture.firstChild)
      this.picture.append(own ? h("img", { src: own, alt: t("job.picture") }) : signedImage(this.app.client, address, t("job.picture")));
    const step = stateOf(job);
    if (this.words.textContent !== step) this.words.textContent = step;
    if (this.spoken !== job.current_step) this.live.textContent = this.spoken = job.current_step && step;
    this.bar.value = job.progress;
    this.percent.textContent = `${number(job.progress)} %`;
    this.cancel.disabled = job.cancel_requested;
  }

  async #cancel() {
    this.cancel.disabled = true;
    const job = await this.app.client.json("DELETE", `/jobs/${this.jobId}`).catch((error) => (this.app.problem(error), null));
    if (job) this.#update(job);
  }

  // When it is over without a mesh

  #drawOver() {
    const { job } = this;
    const address = job.cutout_url ?? job.image_url;
    this.body.replaceChildren(
      h("div", { class: "waiting" },
        address ? h("div", { class: "waiting-picture" }, signedImage(this.app.client, address, t("job.picture"))) : null,
        h("h1", {}, this.title),
        h("p", { class: `said ${job.status === "failed" ? "bad" : ""}`, role: job.status === "failed" ? "alert" : null }, stateOf(job)),
        h("div", { class: "row middle" }, job.image_url ? h("button", { class: "main", on: { click: () => this.#again() } }, icon("again"), t("job.again")) : null, h("a", { class: "button", href: "#/" }, t("job.other"))),
      ),
    );
  }

  // When it is done

  #drawDone() {
    const { job } = this;
    this.stage = new Stage(this.app, this.title);
    this.downloads = h("div", { class: "downloads" });
    this.side = h(
      "aside", { class: "side", "aria-label": t("job.about") },
      h("h1", {}, this.title), h("p", { class: "lead" }, sizeOf(job.metadata ?? {})),
      warnings(job), this.downloads,
      h("button", { class: "wide", on: { click: () => this.#again() } }, icon("again"), t("job.seed")),
      facts(job),
      h("details", { class: "fold" }, h("summary", {}, t("fact.stages")), stages(job)),
      h("details", { class: "fold" }, h("summary", {}, t("job.programs")), h("div", { class: "row" }, this.#copy("curl", curl), this.#copy("Python", python))),
      h("button", { class: "quiet danger", on: { click: () => this.#remove() } }, icon("bin"), t("job.delete")),
    );
    this.body.replaceChildren(h("div", { class: "done" }, this.stage.element, this.side));
    this.#drawDownloads();
    if (!job.files.length) {
      this.stage.note.textContent = t("job.deleted");
      return;
    }
    this.stage.show(job);
  }

  #drawDownloads() {
    const { job } = this;
    const formats = this.app.me.capabilities.formats;
    const main = job.files[0]?.format;
    if (!main) return;
    const entry = (format) => {
      const file = job.files.find((each) => each.format === format);
      const size = file?.bytes ? bytes(file.bytes) : "";
      const text = format === main ? [icon("down"), t("job.download", { format: format.toUpperCase() }), " ", h("small", {}, size)] : format.toUpperCase();
      return h("button", { class: format === main ? "main wide" : "chip", "aria-label": format === main ? null : t("job.download", { format: format.toUpperCase() }), on: { click: (event) => this.#download(format, event.currentTarget) } }, text);
    };
    const others = formats.filter((format) => format !== main);
    this.downloads.replaceChildren(entry(main), h("div", { class: "chips", role: "group", "aria-label": t("job.formats") }, others.map(entry)));
  }

  /** Fetch a format by a fresh link; one that is not there yet is made first, without the device. */
  async #download(format, button) {
    button.disabled = true;
    button.setAttribute("aria-busy", "true");
    try {
      const find = (job) => job.files.find((file) => file.format === format);
      let now = await this.app.client.patiently("GET", `/status/${this.jobId}`);
      if (!find(now)) now = { ...now, ...(await this.app.client.patiently("POST", `/jobs/${this.jobId}/files`, form([["format", format]]))) };
      const file = find(now);
      const source = file.signed_url ? local(file.signed_url) : await this.app.client.file(file.url);
      save(source, `${this.title}.${format}`);
      this.job = { ...this.job, files: now.files };
      toast(t("job.saved", { name: `${this.title}.${format}` }));
    } catch (error) {
      this.app.problem(error);
    }
    button.disabled = false;
    button.removeAttribute("aria-busy");
  }

  async #again() {
    try {
      const said = await this.app.client.patiently("POST", `/jobs/${this.jobId}/again`, form([["async", "true"], ["seed", "-1"]]));
      this.app.go(`#/job/${said.job_id}`);
    } catch (error) {
      this.app.problem(error);
    }
  }

  #copy(name, recipe) {
    const copy = async () => {
      await navigator.clipboard.writeText(recipe(this.job, this.app.me.agent_id));
      toast(t("job.copied", { name }));
    };
    return h("button", { on: { click: copy } }, icon("copy"), t("job.copy", { name }));
  }

  #remove() {
    const close = () => dialog.close();
    const go = async () => {
      close();
      try {
        await this.app.client.json("DELETE", `/jobs/${this.jobId}/files`);
        toast(t("job.removed", { name: this.title }));
        this.app.go("#/gallery");
      } catch (error) {
        this.app.problem(error);
      }
    };
    const dialog = h(
      "dialog", { "aria-labelledby": "sure", on: { close: () => dialog.remove() } },
      h("h2", { id: "sure" }, t("job.sure", { name: this.title })), h("p", {}, t("job.sure_text")),
      h("div", { class: "row end" }, h("button", { on: { click: close } }, t("job.keep")), h("button", { class: "main danger", on: { click: go } }, t("job.delete"))),
    );
    document.body.append(dialog);
    dialog.showModal();
  }
}

/** Several meshes side by side, turned together. */
export function comparePage(app, ids) {
  const stages_ = [];
  const turned = (viewer) => {
    for (const stage of stages_) if (stage.viewer && stage.viewer !== viewer) stage.viewer.lookLike(viewer);
  };
  const grid = h("div", { class: "compare" });
  const element = h("section", {}, h("h1", {}, t("compare.title")), h("p", { class: "lead" }, t("compare.lead")), grid);
  for (const jobId of ids.slice(0, 4)) {
    const cell = h("figure", {});
    grid.append(cell);
    app.client.patiently("GET", `/status/${jobId}`).then(async (job) => {
      const stage = new Stage(app, titleOf(job), { plain: true, onTurn: turned });
      stages_.push(stage);
      const seed = job.metadata ? `${t("fact.seed")} ${job.metadata.seed} · ${number(job.metadata.faces ?? 0)} ${t("fact.faces")}` : "";
      cell.replaceChildren(stage.element, h("figcaption", {}, h("a", { href: `#/job/${jobId}` }, titleOf(job)), h("span", {}, seed)));
      await stage.show(job);
    }, (error) => cell.replaceChildren(h("p", {}, problem(error))));
  }
  return { element, title: t("compare.title"), close: () => stages_.forEach((stage) => stage.close()) };
}
