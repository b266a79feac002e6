// /docs: every call can be tried, signed with the key that the studio signs with. Swagger UI shows them.

import { forget, kept, make } from "./credentials.js";
import { form } from "./form.js";
import { canSign, signingHeaders } from "./signing.js";

let credential = null;
const part = (id) => document.getElementById(id);

function show() {
  part("sign-in").hidden = Boolean(credential) || !canSign();
  part("signed-in").hidden = !credential;
  part("no-signing").hidden = canSign();
  part("who").textContent = credential?.agentId ?? "";
}

async function enter(event) {
  event.preventDefault();
  credential = await make(part("agent").value.trim(), part("key").value.trim(), part("keep").checked);
  part("key").value = "";
  show();
}

async function leave() {
  await forget();
  // The answers that are shown go, too.
  location.reload();
}

/** Whether a form's field was filled in: Swagger UI sends the others as empty texts, which are values that are wrong. */
function isGiven([, value]) {
  return value instanceof Blob ? value.size > 0 : value !== "";
}

/** Return a body as a Blob: of a form, what is signed is the very bytes that are sent. */
function bodyOf(request) {
  if (request.body instanceof FormData) {
    const { body, headers } = form([...request.body].filter(isGiven));
    return new Blob([body], { type: headers["Content-Type"] });
  }
  return request.body ? new Blob([request.body], { type: request.headers["Content-Type"] }) : undefined;
}

/** Sign a request of Swagger UI's, but for the document itself. */
async function sign(request) {
  const address = new URL(request.url, location.href);
  if (request.loadSpec || !address.pathname.includes("/api/agent/")) return request;
  // A public address may be another than the one this page has.
  const target = address.pathname + address.search;
  const body = bodyOf(request);
  const signed = credential ? await signingHeaders(credential, request.method, target, body) : {};
  return Object.assign(request, { url: target, body, headers: { ...request.headers, ...signed } });
}

/** Return what a field of a form is called, by the row of the table that it stands in. */
function nameOf(field) {
  if (field.id === "include_empty_value") return "Send empty value";
  const row = field.closest("tr, .parameters");
  const name = row?.dataset.propertyName ?? row?.dataset.paramName ?? row?.querySelector(".parameter__name")?.textContent;
  return name?.trim() || (field.id === "servers" ? "Server" : "Media type");
}

/** Give what Swagger UI draws the names and places that a screen reader and a keyboard need. */
function makeReadable() {
  for (const field of part("page").querySelectorAll("input, select, textarea")) {
    // The label of the servers' list has no text but the list's own.
    const labelled = field.id !== "servers" && field.labels?.length > 0;
    if (!labelled && !field.ariaLabel) field.ariaLabel = nameOf(field);
  }
  for (const button of part("page").querySelectorAll("button")) {
    if (!button.textContent.trim() && !button.ariaLabel) button.ariaLabel = "Copy";
  }
  for (const answers of part("page").querySelectorAll("table[role=region]")) answers.ariaLabel = answers.id.replaceAll("_", " ");
  for (const title of part("page").querySelectorAll("h3.opblock-tag")) title.ariaLevel = "2";
  for (const title of part("page").querySelectorAll("h4, h5")) title.ariaLevel = "3";
  for (const text of part("page").querySelectorAll("pre, .highlight-code, .renderedMarkdown table")) text.tabIndex = 0;
}

/** Return the document with fields that stay empty until somebody fills them in: Swagger UI would draw values for them. */
async function documentOf(address) {
  const read = await (await fetch(address)).json();
  const forms = Object.entries(read.components.schemas).filter(([name]) => name.endsWith("Form"));
  for (const [, { properties }] of forms) {
    for (const property of Object.values(properties)) {
      if (!("default" in property) && property.format !== "binary" && property.type !== "array") property.example = "";
    }
  }
  return read;
}

part("sign-in").addEventListener("submit", enter);
part("leave").addEventListener("click", leave);
credential = canSign() ? await kept() : null;
show();
new MutationObserver(makeReadable).observe(part("page"), { childList: true, subtree: true });
window.SwaggerUIBundle({
  spec: await documentOf("openapi.json"),
  dom_id: "#page",
  requestInterceptor: sign,
  showMutatedRequest: true,
  defaultModelsExpandDepth: 0,
  docExpansion: "list",
  tryItOutEnabled: true,
});
