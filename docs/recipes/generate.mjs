// A picture to a mesh with Node 18 or later and nothing else: node generate.mjs picture.png mesh.glb
// ORFEAS_URL, ORFEAS_AGENT_ID and ORFEAS_API_KEY say where to and who.
import { createHash, createHmac, randomUUID } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import { extname } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

const { ORFEAS_URL, ORFEAS_AGENT_ID, ORFEAS_API_KEY } = process.env;
const [picture, mesh] = process.argv.slice(2);

async function call(method, target, form, headers = {}) {
  const url = new URL(target, ORFEAS_URL);
  // Never follow an answer to another host with a signature in hand.
  if (url.origin !== new URL(ORFEAS_URL).origin) throw new Error(`This is no address of ${ORFEAS_URL}: ${target}`);
  // The body is what is signed, so the form is turned into bytes before it is sent.
  const draft = new Request(url, { method, body: form });
  const body = Buffer.from(await draft.arrayBuffer());
  const type = draft.headers.get("content-type");
  const timestamp = String(Math.floor(Date.now() / 1000));
  const nonce = randomUUID();
  const digest = createHash("sha256").update(body).digest("hex");
  const signed = ["v1", method, url.pathname, url.search.slice(1), ORFEAS_AGENT_ID, timestamp, nonce, digest].join("\n");
  const response = await fetch(url, {
    method,
    redirect: "error",
    body: form ? body : undefined,
    headers: {
      ...headers,
      ...(type ? { "Content-Type": type } : {}),
      "X-Agent-ID": ORFEAS_AGENT_ID,
      "X-Agent-Timestamp": timestamp,
      "X-Agent-Nonce": nonce,
      "X-Agent-Content-SHA256": digest,
      "X-Agent-Signature": createHmac("sha256", ORFEAS_API_KEY).update(signed).digest("hex"),
    },
  });
  if (!response.ok) throw new Error(await response.text());
  return response;
}

const form = new FormData();
form.set("format", extname(mesh).slice(1));
form.set("async", "true");
form.set("image", new Blob([await readFile(picture)]), "picture");

try {
  const sent = await call("POST", "/api/agent/generate-3d", form, { "Idempotency-Key": randomUUID() });
  let job = await sent.json();
  while (job.status !== "completed") {
    if (["failed", "cancelled"].includes(job.status)) throw new Error(JSON.stringify(job.error ?? job.status));
    await sleep(1000);
    job = await (await call("GET", `/api/agent/status/${job.job_id}`)).json();
  }
  const file = await call("GET", job.download_url);
  await writeFile(mesh, Buffer.from(await file.arrayBuffer()));
} catch (failure) {
  console.error(failure.message);
  process.exitCode = 1;
}
