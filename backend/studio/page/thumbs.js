// Small pictures of jobs, fetched signed and kept while the page lives; at most a few are fetched at once.

import { h } from "./dom.js";

const MOST_AT_ONCE = 3;
let known = new Map();
const waiting = [];
let busy = 0;

function next() {
  while (busy < MOST_AT_ONCE && waiting.length) {
    const { client, address, done } = waiting.shift();
    const into = known;
    busy += 1;
    client
      .file(address)
      .then((blob) => URL.createObjectURL(blob), () => "")
      .then((made) => {
        busy -= 1;
        if (into === known) {
          known.set(address, made);
          done(made);
        } else URL.revokeObjectURL(made);
        next();
      });
  }
}

/** Forget every image that was fetched, or is on its way: they are those of who was signed in. */
export function forgetImages() {
  for (const address of known.values()) URL.revokeObjectURL(address);
  known = new Map();
  waiting.length = 0;
}

/** Return an image element of a file that needs a signature; it is fetched when it comes into sight. */
export function signedImage(client, address, alt, onReady = () => {}) {
  const image = h("img", { alt, class: "later" });
  const show = (source) => {
    if (!source) return;
    image.src = source;
    image.classList.remove("later");
    onReady(image);
  };
  if (!address) return image;
  if (known.has(address)) show(known.get(address));
  else {
    const observer = new IntersectionObserver((entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      observer.disconnect();
      waiting.push({ client, address, done: show });
      next();
    }, { rootMargin: "200px" });
    observer.observe(image);
  }
  return image;
}
