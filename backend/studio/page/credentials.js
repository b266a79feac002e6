// Who signs: in memory, and in IndexedDB where the person asks for it. There lies a key that no script can read out.

import { importKey } from "./signing.js";

const DATABASE = "orfeas-studio";
const STORE = "credentials";

function inStore(mode, act) {
  return new Promise((resolve, reject) => {
    const opening = indexedDB.open(DATABASE, 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore(STORE);
    opening.onerror = () => reject(opening.error);
    opening.onsuccess = () => {
      const database = opening.result;
      const transaction = database.transaction(STORE, mode);
      const request = act(transaction.objectStore(STORE));
      transaction.oncomplete = () => (database.close(), resolve(request.result));
      transaction.onerror = () => (database.close(), reject(transaction.error));
    };
  });
}

/** Return the credential that was kept, {agentId, key}, or null; also where the browser keeps nothing. */
export async function kept() {
  try {
    return (await inStore("readonly", (store) => store.get("own"))) || null;
  } catch {
    return null;
  }
}

/** Return a credential of an id and a key as text; remember : keep it, as a key that cannot be read. */
export async function make(agentId, keyText, remember) {
  const credential = { agentId, key: await importKey(keyText) };
  if (remember) await inStore("readwrite", (store) => store.put(credential, "own")).catch(() => null);
  return credential;
}

/** Forget the credential that was kept. */
export const forget = () => inStore("readwrite", (store) => store.delete("own")).catch(() => null);

/** Exchange a one-use code for a credential, which is kept. Throws the service's answer's sentence. */
export async function redeem(code) {
  const answer = await fetch("/studio/session", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ code }),
  });
  const said = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(said.error), { code: said.code });
  return make(said.agent_id, said.api_key, true);
}
