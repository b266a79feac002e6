// Who signs: an agent's id and key, asked for once.

import { Client } from "./api.js";
import { forget, make } from "./credentials.js";
import { h } from "./dom.js";
import { problem, t } from "./i18n.js";

/** signedIn : takes a client and goes on, or throws; notice : why the person is here, "" for nothing special */
export function signInPage({ signedIn, notice }) {
  const id = h("input", { id: "agent", name: "username", autocomplete: "username", required: true, spellcheck: "false", autocapitalize: "none" });
  const key = h("input", { id: "key", type: "password", autocomplete: "off", required: true });
  const keep = h("input", { id: "keep", type: "checkbox" });
  const said = h("p", { class: "said bad", role: "alert", hidden: !notice }, notice);
  const button = h("button", { class: "main" }, t("in.go"));
  const enter = async (event) => {
    event.preventDefault();
    button.disabled = true;
    said.hidden = true;
    try {
      await signedIn(new Client(await make(id.value.trim(), key.value.trim(), keep.checked)));
    } catch (error) {
      await forget();
      said.textContent = problem(error);
      said.hidden = false;
      button.disabled = false;
      key.focus();
    }
  };
  const element = h(
    "section", { class: "sign-in" },
    h("h1", {}, t("in.title")),
    h("p", { class: "lead" }, t("in.lead")),
    h(
      "form", { on: { submit: enter }, method: "post" },
      h("label", { htmlFor: "agent" }, t("in.agent")), id,
      h("label", { htmlFor: "key" }, t("in.key")), key,
      h("label", { class: "tick" }, keep, h("span", {}, t("in.keep"))),
      said, button,
    ),
    h("p", { class: "fine" }, t("in.hint"), " ", h("code", {}, "orfeas studio")),
  );
  return { element, title: t("in.title"), close: () => {} };
}
