// One's jobs as cards: what is being made moves on by itself; filtered, chosen for comparison, deleted.

import { h, icon } from "./dom.js";
import { isFinished } from "./follow.js";
import { has, problem, seconds, t } from "./i18n.js";
import { signedImage } from "./thumbs.js";

const PAGE = 24;
const MOST_COMPARED = 4;

export const titleOf = (job) => job.label && !job.batch_id ? job.label : job.filename?.replace(/\.[^.]*$/, "") || job.label || t("job.untitled");

/** Return how a job is, in words. */
export function stateOf(job) {
  if (job.status === "queued") return job.queue_position ? t("state.position", { n: job.queue_position }) : t("state.queued");
  if (job.status === "processing") {
    if (job.cancel_requested) return t("state.stopping");
    const step = `step.${job.current_step.split(" ")[0]}`;
    const known = has(step) ? t(step) : t("state.processing");
    return job.eta_seconds ? `${known} · ${t("state.eta", { time: seconds(job.eta_seconds) })}` : known;
  }
  if (job.status === "failed") return job.error ? problem(job.error) : t("state.failed");
  return t(`state.${job.status}`);
}

/** Return cards of jobs, newest first. quiet : whether nothing is said where there are none. */
export function jobCards(app, { limit = PAGE, quiet = false, filter = () => "", choose = null } = {}) {
  const list = h("ul", { class: "cards" });
  const empty = h("p", { class: "empty", hidden: true });
  const more = h("button", { class: "more", hidden: true, on: { click: () => load() } }, t("gallery.more"));
  const heading = quiet ? h("h2", { hidden: true }, t("gallery.recent")) : null;
  const element = h("div", {}, heading, list, empty, more);
  const cards = new Map();
  let cursor = null;
  let asked = 0;

  const update = (job) => {
    const card = cards.get(job.job_id);
    if (!card) return;
    card.job = job;
    const title = titleOf(job);
    const busy = !isFinished(job);
    const address = job.thumbnail_url ?? job.cutout_url ?? job.image_url;
    const own = app.pictures.get(job.job_id);
    const image = address ? signedImage(app.client, address, "") : own ? h("img", { src: own, alt: "" }) : icon(job.status === "failed" ? "warn" : "picture");
    const drawing = h("div", { class: `thumb ${busy ? "busy" : ""} ${job.status}` }, image);
    const bar = busy ? h("progress", { max: 100, value: job.progress, "aria-label": t("job.progress", { name: title }) }) : null;
    const words = job.status === "completed" ? null : h("span", { class: `state ${job.status}` }, stateOf(job));
    const open = h("a", { href: `#/job/${job.job_id}` }, drawing, h("strong", {}, title), words, bar);
    const held = card.element.contains(document.activeElement) && document.activeElement.tagName === "A";
    card.element.replaceChildren(open, card.tick && job.status === "completed" ? card.tick : "");
    if (held) open.focus();
  };
  const add = (job) => {
    const tick = choose && h("label", { class: "choose" }, h("input", { type: "checkbox", on: { change: (event) => choose(job.job_id, event.target.checked, event.target) } }), h("span", { class: "unseen" }, t("gallery.choose", { name: titleOf(job) })));
    cards.set(job.job_id, { element: h("li", {}), tick, job });
    list.append(cards.get(job.job_id).element);
    update(job);
    if (!isFinished(job)) app.follower.watch(job.job_id, update);
  };
  const load = async () => {
    const turn = asked;
    const query = new URLSearchParams({ limit, ...(cursor ? { cursor } : {}) });
    const said = await app.client.patiently("GET", `/jobs?${query}${filter()}`).catch((error) => (app.problem(error), null));
    if (!said || turn !== asked) return;
    said.jobs.forEach(add);
    cursor = said.next_cursor;
    more.hidden = quiet || !cursor;
    if (heading) heading.hidden = !cards.size;
    empty.hidden = quiet || cards.size > 0;
    empty.textContent = filter() ? t("gallery.none_such") : t("gallery.none");
  };
  const reload = () => {
    close();
    asked += 1;
    cursor = null;
    return load();
  };
  const close = () => {
    for (const jobId of cards.keys()) app.follower?.forget(jobId);
    cards.clear();
    list.replaceChildren();
  };
  load();
  return { element, close, reload };
}

export function galleryPage(app) {
  const chosen = new Map();
  const state = h("select", { id: "state", on: { change: () => cards.reload() } }, ["", "completed", "queued,processing", "failed", "cancelled"].map((value) => h("option", { value }, t(`filter.${value || "all"}`))));
  const text = h("input", { id: "text", type: "search", placeholder: t("filter.text"), "aria-label": t("filter.text"), maxlength: 200 });
  let timer;
  text.addEventListener("input", () => (clearTimeout(timer), (timer = setTimeout(() => cards.reload(), 300))));
  const compare = h("button", { class: "main", on: { click: () => app.go(`#/compare/${[...chosen.keys()].join(",")}`) } });
  const tray = h("div", { class: "tray", hidden: true }, compare, h("button", { on: { click: clear } }, t("gallery.clear")));
  function draw() {
    tray.hidden = !chosen.size;
    compare.disabled = chosen.size < 2;
    compare.textContent = chosen.size < 2 ? t("gallery.one_more") : t("gallery.compare", { n: chosen.size });
  }
  function clear() {
    for (const box of chosen.values()) box.checked = false;
    chosen.clear();
    draw();
  }
  const choose = (jobId, isChosen, box) => {
    if (isChosen && chosen.size >= MOST_COMPARED) box.checked = false;
    else if (isChosen) chosen.set(jobId, box);
    else chosen.delete(jobId);
    draw();
  };
  const filter = () => (state.value ? `&status=${encodeURIComponent(state.value)}` : "") + (text.value.trim() ? `&label=${encodeURIComponent(text.value.trim())}` : "");
  const cards = jobCards(app, { filter, choose });
  const element = h(
    "section", { class: "gallery" },
    h("div", { class: "head" }, h("h1", {}, t("gallery.title")), h("div", { class: "filters" }, text, h("label", { htmlFor: "state", class: "unseen" }, t("filter.state")), state)),
    cards.element, tray,
  );
  return { element, title: t("gallery.title"), close: () => cards.close() };
}
