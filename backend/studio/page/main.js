// The studio put together: who signs, which page is shown, and what stands around it.

import { ApiError, Client } from "./api.js";
import { forget, kept, redeem } from "./credentials.js";
import { h, icon, toast } from "./dom.js";
import { Follower } from "./follow.js";
import { galleryPage } from "./gallery.js";
import { LANGUAGES, language, loadLanguage, problem, t } from "./i18n.js";
import { candidatesPage, comparePage, jobPage } from "./job.js";
import { makePage } from "./make.js";
import { signInPage } from "./sign_in.js";
import { canSign } from "./signing.js";
import { forgetImages } from "./thumbs.js";

const main = document.getElementById("main");
const app = { client: null, me: null, follower: null, go, problem: tell, unsent: [], pictures: new Map() };
let shown = { close: () => {} };
let notice = "";

const PAGES = [
  [/^#\/gallery$/, () => galleryPage(app)],
  [/^#\/job\/([0-9a-f]{32})$/, (id) => jobPage(app, id)],
  [/^#\/candidates\/([0-9a-f]{32})$/, (id) => candidatesPage(app, id)],
  [/^#\/compare\/([0-9a-f,]+)$/, (ids) => comparePage(app, ids.split(","))],
  [/^/, () => makePage(app)],
];

function go(hash) {
  if (location.hash === hash) show();
  else location.hash = hash;
}

function tell(error) {
  if (error?.name === "AbortError") return;
  if (error instanceof ApiError && ["AUTH_INVALID", "AGENT_DISABLED"].includes(error.code)) signOut(problem(error));
  else toast(problem(error), "bad");
}

function show(moves = true) {
  shown.close();
  if (!app.client) shown = signInPage({ signedIn, notice });
  else {
    const [pattern, page] = PAGES.find(([each]) => each.test(location.hash));
    shown = page(...(location.hash.match(pattern) ?? []).slice(1));
  }
  notice = "";
  document.title = `${shown.title} – Orfeas Studio`;
  main.replaceChildren(shown.element);
  drawBar();
  window.scrollTo(0, 0);
  if (moves) main.focus({ preventScroll: true });
}

function drawBar() {
  document.getElementById("skip").textContent = t("nav.skip");
  const here = location.hash;
  const entry = (hash, text, isHere) => h("a", { href: hash, "aria-current": isHere ? "page" : null }, text);
  const isGallery = here.startsWith("#/gallery") || here.startsWith("#/compare");
  const links = h(
    "nav", { "aria-label": t("nav.label") },
    entry("#/", t("nav.new"), !isGallery && !here.startsWith("#/job")),
    entry("#/gallery", t("nav.gallery"), isGallery),
  );
  const choose = async (event) => (await loadLanguage(event.target.value), show(false));
  const languages = h(
    "select", { "aria-label": t("nav.language"), class: "quiet", on: { change: choose } },
    Object.entries(LANGUAGES).map(([code, name]) => h("option", { value: code, selected: code === language, lang: code }, name)),
  );
  const out = h("button", { class: "quiet", on: { click: () => signOut("") } }, t("nav.out"));
  const who = app.me && h("span", { class: "who", title: t("nav.who") }, app.me.agent_id);
  document.getElementById("bar").replaceChildren(
    h("a", { class: "mark", href: "#/" }, h("b", {}, "Orfeas"), " Studio"),
    app.client ? links : h("span"),
    h("div", { class: "end" }, who, languages, app.client?.credential ? out : null),
  );
}

async function signedIn(client) {
  const me = await client.json("GET", "/me");
  Object.assign(app, { client, me, follower: new Follower(client) });
  show();
}

async function signOut(why) {
  notice = why;
  app.follower?.stop();
  Object.assign(app, { client: null, me: null, follower: null, unsent: [] });
  for (const address of app.pictures.values()) URL.revokeObjectURL(address);
  app.pictures.clear();
  forgetImages();
  await forget();
  show();
}

/** Return who signs, found without asking the person; null where they have to be asked. */
async function found() {
  const code = /^#code=([A-Za-z0-9_-]+)$/.exec(location.hash)?.[1];
  if (code) {
    // Gone from the address before anything else happens: it is good once, and nobody's business.
    history.replaceState(null, "", location.pathname);
    try {
      return new Client(await redeem(code));
    } catch (error) {
      notice = problem(error);
    }
  }
  const credential = await kept();
  if (credential) return new Client(credential);
  // A service of this machine may take requests without signatures.
  if ("open" in document.body.dataset) return new Client(null);
  return null;
}

async function begin() {
  await loadLanguage();
  window.addEventListener("hashchange", () => show());
  window.addEventListener("unhandledrejection", (event) => (event.preventDefault(), tell(event.reason)));
  if (!canSign()) {
    shown = { element: h("p", { class: "lone" }, icon("warn"), t("https")), title: "https", close: () => {} };
    main.replaceChildren(shown.element);
    drawBar();
    return;
  }
  const client = await found();
  try {
    if (client) return await signedIn(client);
  } catch (error) {
    notice = problem(error);
    if (error.code === "AUTH_INVALID") await forget();
  }
  show();
}

begin();
