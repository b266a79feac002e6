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
  credential = null;
  await forget();
  show();
}

/** Return a body as a Blob: of a form, what is signed is the very bytes that are sent. */
function bodyOf(request) {
  if (request.body instanceof FormData) {
    const { body, headers } = form([...request.body]);
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

part("sign-in").addEventListener("submit", enter);
part("leave").addEventListener("click", leave);
credential = canSign() ? await kept() : null;
show();
window.SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#page",
  requestInterceptor: sign,
  showMutatedRequest: true,
  defaultModelsExpandDepth: 0,
  docExpansion: "list",
  tryItOutEnabled: true,
});
