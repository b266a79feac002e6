// The service as this page calls it: each request signed, each refusal an ApiError, waits as the service asks.

import { signingHeaders } from "./signing.js";

export const API = "/api/agent";
const NETWORK = "NETWORK";

export class ApiError extends Error {
  constructor(status, code, message, details = {}, retryAfter = 0) {
    super(message);
    Object.assign(this, { status, code, details, retryAfter });
  }

  /** Whether the same request may pass later. */
  get passes() {
    return this.code === NETWORK || this.status === 429 || this.status === 503;
  }
}

export const pause = (seconds, signal) =>
  new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal?.addEventListener("abort", () => (clearTimeout(timer), reject(signal.reason)), { once: true });
  });

/** Return where an address of an answer is fetched from here: answers may name a public address. */
export function local(address) {
  const parsed = new URL(address, location.href);
  return parsed.pathname + parsed.search;
}

export class Client {
  /** credential : {agentId, key}; null where the service takes requests of this machine without signatures. */
  constructor(credential) {
    this.credential = credential;
    this.ahead = 0;
  }

  /** Send a request; return the Response. body : a Blob. Throws ApiError. */
  async send(method, target, { body, headers = {}, signal } = {}, isSecond = false) {
    const signed = this.credential ? await signingHeaders(this.credential, method, target, body, this.ahead) : {};
    let response;
    try {
      response = await fetch(target, { method, body, signal, headers: { ...headers, ...signed }, cache: "no-store" });
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new ApiError(0, NETWORK, "The service cannot be reached.");
    }
    if (response.ok) return response;
    const error = await refusal(response);
    if (error.code === "AUTH_EXPIRED" && error.details.server_time && !isSecond) {
      // This machine's clock is off: sign by the service's.
      this.ahead = error.details.server_time - Date.now() / 1000;
      return this.send(method, target, { body, headers, signal }, true);
    }
    throw error;
  }

  /** Return the answer's JSON. */
  async json(method, path, options) {
    return (await this.send(method, API + path, options)).json();
  }

  /** As json, again and again while it may pass. onWait : is told of each wait, with the error */
  async patiently(method, path, options = {}, onWait = () => {}) {
    for (let tries = 0; ; tries += 1) {
      try {
        return await this.json(method, path, options);
      } catch (error) {
        if (!(error instanceof ApiError) || !error.passes || tries >= 40) throw error;
        onWait(error);
        await pause(error.retryAfter || Math.min(5, 0.5 * 1.5 ** tries), options.signal);
      }
    }
  }

  /** Return a file of the service as a Blob. */
  async file(address) {
    return (await this.send("GET", local(address))).blob();
  }
}

async function refusal(response) {
  const after = Number(response.headers.get("Retry-After")) || 0;
  try {
    const said = await response.json();
    return new ApiError(response.status, said.code, said.error, said.details, after);
  } catch {
    return new ApiError(response.status, "HTTP", `The service answered ${response.status}.`, {}, after);
  }
}
