// How jobs are followed: by the service's event stream, or by asking with `?wait=` where there is none.

import { API, ApiError, pause } from "./api.js";

const FINISHED = new Set(["completed", "failed", "cancelled"]);
const WAIT_SECONDS = 25;
const NO_STREAMS = ["NOT_FOUND", "STREAMS_UNSUPPORTED", "TOO_MANY_STREAMS"];
/** Connections to one server are few in a browser, so only so many jobs are waited for one by one. */
const MOST_ALONE = 2;
const LIST_SECONDS = 1.5;

export const isFinished = (job) => FINISHED.has(job.status);

export class Follower {
  constructor(client) {
    this.client = client;
    this.watched = new Map();
    this.streams = true;
    this.listing = false;
  }

  /** Tell onChange of a job now and whenever it changes, until it is finished; onLost of each failure to ask. */
  watch(jobId, onChange, onLost = () => {}) {
    this.forget(jobId);
    const control = new AbortController();
    this.watched.set(jobId, { onChange, onLost, control });
    const alone = [...this.watched.values()].filter((entry) => entry.alone).length < MOST_ALONE;
    this.watched.get(jobId).alone = alone;
    if (alone) this.#follow(jobId, onChange, onLost, control.signal);
    else this.#list();
  }

  forget(jobId) {
    this.watched.get(jobId)?.control.abort();
    this.watched.delete(jobId);
  }

  stop() {
    for (const jobId of [...this.watched.keys()]) this.forget(jobId);
  }

  #tell(jobId, job) {
    const entry = this.watched.get(jobId);
    if (!entry) return;
    if (isFinished(job)) this.watched.delete(jobId);
    entry.onChange(job);
  }

  async #follow(jobId, onChange, onLost, signal) {
    for (let tries = 0, first = true; !signal.aborted && this.watched.has(jobId); ) {
      try {
        if (this.streams && !first) {
          await this.#stream(jobId, signal);
          // One that ends before its job does is asked for again, but not in a hurry.
          await pause(0.5, signal);
        } else {
          const query = first ? "" : `?wait=${WAIT_SECONDS}`;
          this.#tell(jobId, await this.client.json("GET", `/status/${jobId}${query}`, { signal }));
        }
        first = false;
        tries = 0;
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof ApiError && this.streams && NO_STREAMS.includes(error.code)) {
          this.streams = false;
          continue;
        }
        first = true;
        if (error instanceof ApiError && !error.passes) {
          this.watched.delete(jobId);
          onLost(error, true);
          return;
        }
        onLost(error, false);
        tries += 1;
        await pause(error.retryAfter || Math.min(5, 0.5 * 1.5 ** tries), signal).catch(() => null);
      }
    }
  }

  /** Read the events of a job until its stream ends: each has the job as /status has it. */
  async #stream(jobId, signal) {
    const headers = { Accept: "text/event-stream" };
    const response = await this.client.send("GET", `${API}/status/${jobId}/events`, { headers, signal });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      text += value;
      const events = text.split(/\r?\n\r?\n/);
      text = events.pop();
      for (const event of events) {
        const data = event.split(/\r?\n/).filter((line) => line.startsWith("data:"));
        if (data.length) this.#tell(jobId, JSON.parse(data.map((line) => line.slice(5)).join("\n")));
      }
    }
  }

  /** Ask for all jobs that are not waited for alone, with one call for all of them. */
  async #list() {
    if (this.listing) return;
    this.listing = true;
    const rest = () => [...this.watched].filter(([, entry]) => !entry.alone);
    while (rest().length) {
      try {
        const { jobs } = await this.client.json("GET", "/jobs?limit=100");
        for (const job of jobs) if (rest().some(([jobId]) => jobId === job.job_id)) this.#tell(job.job_id, job);
      } catch (error) {
        for (const [, entry] of rest()) entry.onLost(error, false);
      }
      await pause(LIST_SECONDS);
    }
    this.listing = false;
  }
}
