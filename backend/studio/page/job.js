// One job: waited for while it is made, then turned, read about and taken away. And several side by side.

import { local } from "./api.js";
import { h, icon, save, toast } from "./dom.js";
import { facts, sizeOf, stages, warnings } from "./facts.js";
import { isFinished } from "./follow.js";
import { form } from "./form.js";
import { stateOf, titleOf } from "./gallery.js";
import { bytes, number, problem, t } from "./i18n.js";
import { curl, python } from "./recipes.js";
import { filesOf, Stage } from "./stage.js";
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
    this.candidate = 0;
    this.side = h(
      "aside", { class: "side", "aria-label": t("job.about") },
      h("h1", {}, this.title), h("p", { class: "lead" }, sizeOf(job.metadata ?? {})),
      warnings(job), this.#candidates(), this.downloads,
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

  /** Return the choice between a job's candidates; null where one alone was kept. */
  #candidates() {
    const { job } = this;
    const found = keptOf(job);
    if (found.length < 2) return null;
    const buttons = found.map((k) => h("button", { class: "chip", "aria-pressed": String(k === 0), "aria-label": wordsOf(job, k).join(" · "), on: { click: () => choose(k) } }, String(k + 1)));
    const choose = (k) => {
      this.candidate = k;
      buttons.forEach((button, place) => button.setAttribute("aria-pressed", String(found[place] === k)));
      this.#drawDownloads();
      this.stage.show(job, k);
    };
    return h("div", { class: "candidates" }, h("h2", {}, t("candidate.title")), h("div", { class: "chips", role: "group", "aria-label": t("candidate.title") }, buttons), h("a", { href: `#/candidates/${this.jobId}` }, t("candidate.compare")));
  }

  #drawDownloads() {
    const { job, candidate } = this;
    const files = filesOf(job, candidate);
    // More formats are made of the best one alone.
    const formats = candidate ? files.map((file) => file.format) : this.app.me.capabilities.formats;
    const main = files[0]?.format;
    if (!main) return;
    const entry = (format) => {
      const file = files.find((each) => each.format === format);
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
      const { candidate } = this;
      const find = (job) => filesOf(job, candidate).find((file) => file.format === format);
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

/** Return the numbers of a job's candidates that have files, the best one first. */
const keptOf = (job) => [...new Set(job.files.map((file) => file.candidate ?? 0))].sort((a, b) => a - b);

/** Return what a candidate is called, and what it was judged by. */
function wordsOf(job, k) {
  const judged = job.metadata?.candidates?.[k] ?? {};
  const fit = judged.silhouette_iou ?? null;
  return [t("candidate.one", { n: k + 1 }), judged.seed === undefined ? "" : `${t("fact.seed")} ${judged.seed}`, fit === null ? "" : t("candidate.fit", { n: number(fit * 100) })].filter(Boolean);
}

/** Several meshes side by side, turned together: a page without any so far. */
class SideBySide {
  constructor(app, title) {
    this.app = app;
    this.title = title;
    this.stages = [];
    this.grid = h("div", { class: "compare" });
    this.element = h("section", {}, h("h1", {}, title), h("p", { class: "lead" }, t("compare.lead")), this.grid);
  }

  close() {
    this.stages.forEach((stage) => stage.close());
  }

  /** Keep a place for a mesh. */
  cell() {
    const cell = h("figure", {});
    this.grid.append(cell);
    return cell;
  }

  /** Show a job's candidate in its place, with a name that leads somewhere and a word about it. */
  async show(cell, job, candidate, name, said) {
    const turned = (viewer) => {
      for (const each of this.stages) if (each.viewer && each.viewer !== viewer) each.viewer.lookLike(viewer);
    };
    const stage = new Stage(this.app, name, { plain: true, onTurn: turned });
    this.stages.push(stage);
    cell.replaceChildren(stage.element, h("figcaption", {}, h("a", { href: `#/job/${job.job_id}` }, name), h("span", {}, said)));
    await stage.show(job, candidate);
  }
}

/** Several jobs' meshes side by side. */
export function comparePage(app, ids) {
  const page = new SideBySide(app, t("compare.title"));
  for (const jobId of ids.slice(0, 4)) {
    const cell = page.cell();
    app.client.patiently("GET", `/status/${jobId}`).then((job) => {
      const seed = job.metadata ? `${t("fact.seed")} ${job.metadata.seed} · ${number(job.metadata.faces ?? 0)} ${t("fact.faces")}` : "";
      return page.show(cell, job, 0, titleOf(job), seed);
    }, (error) => cell.replaceChildren(h("p", {}, problem(error))));
  }
  return page;
}

/** One job's candidates side by side, the best one first. */
export function candidatesPage(app, jobId) {
  const page = new SideBySide(app, t("candidate.compare"));
  app.client.patiently("GET", `/status/${jobId}`).then((job) => {
    for (const k of keptOf(job)) {
      const [name, ...said] = wordsOf(job, k);
      page.show(page.cell(), job, k, name, said.join(" · "));
    }
  }, (error) => page.cell().replaceChildren(h("p", {}, problem(error))));
  return page;
}
