// Requests signed as docs/signing.md says, by WebCrypto. The key is a CryptoKey that no script can read.

const encoder = new TextEncoder();

/** Whether this page can sign: browsers have WebCrypto on https and on this machine alone. */
export const canSign = () => Boolean(globalThis.crypto && crypto.subtle);

/** Return a key to sign with; what it was made of cannot be had back from it. */
export function importKey(text) {
  return crypto.subtle.importKey("raw", encoder.encode(text), { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
}

const hex = (buffer) => Array.from(new Uint8Array(buffer), (byte) => byte.toString(16).padStart(2, "0")).join("");

/** Return the SHA-256 of a body (a Blob, or nothing) as lower-case hex. */
export async function digest(body) {
  return hex(await crypto.subtle.digest("SHA-256", body ? await body.arrayBuffer() : new Uint8Array()));
}

export const nonce = () => hex(crypto.getRandomValues(new Uint8Array(16)));

/**
 * Return the signing headers of a request.
 * credential : {agentId, key}; target : path and query as they are sent; ahead : seconds the service's clock is ahead
 */
export async function signingHeaders(credential, method, target, body, ahead = 0) {
  const [path, query = ""] = target.split("?", 2);
  const timestamp = String(Math.floor(Date.now() / 1000 + ahead));
  const once = nonce();
  const bodyDigest = await digest(body);
  const text = ["v1", method, path, query, credential.agentId, timestamp, once, bodyDigest].join("\n");
  const signature = hex(await crypto.subtle.sign("HMAC", credential.key, encoder.encode(text)));
  return {
    "X-Agent-ID": credential.agentId,
    "X-Agent-Timestamp": timestamp,
    "X-Agent-Nonce": once,
    "X-Agent-Content-SHA256": bodyDigest,
    "X-Agent-Signature": signature,
  };
}
