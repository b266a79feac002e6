// Texts in a person's language. Another language is a file texts.CODE.js beside the others, and its name here.

export const LANGUAGES = { en: "English", de: "Deutsch" };
const KEPT = "orfeas-studio-language";

let texts = {};
let fallback = {};
export let language = "en";

/** Load the language that was chosen before, else the browser's, else English; or this one. */
export async function loadLanguage(chosen) {
  const wishes = [chosen, localStorage.getItem(KEPT), ...navigator.languages.map((tag) => tag.slice(0, 2)), "en"];
  language = wishes.find((code) => code in LANGUAGES);
  if (chosen) localStorage.setItem(KEPT, language);
  fallback = (await import("./texts.en.js")).default;
  texts = language === "en" ? fallback : (await import(`./texts.${language}.js`)).default;
  document.documentElement.lang = language;
}

/** Return a text with its values filled in; one with `|` is chosen by the value `n`: one, then many. */
export function t(name, values = {}) {
  let text = texts[name] ?? fallback[name] ?? name;
  if (text.includes("|")) text = text.split("|")[values.n === 1 ? 0 : 1];
  return text.replace(/\{(\w+)\}/g, (_, key) => values[key] ?? "");
}

export const has = (name) => name in texts || name in fallback;

export const number = (value, digits = 0) =>
  new Intl.NumberFormat(language, { maximumFractionDigits: digits }).format(value);

/** Return seconds as people say them. */
export function seconds(value) {
  if (value < 10) return t("unit.seconds", { n: number(value, 1) });
  return value < 90 ? t("unit.seconds", { n: number(Math.round(value)) }) : t("unit.minutes", { n: number(value / 60, 1) });
}

export function bytes(value) {
  const [size, unit] = value < 1e6 ? [value / 1000, "kB"] : [value / 1e6, "MB"];
  return `${number(size, size < 10 ? 1 : 0)} ${unit}`;
}

/** Return what is wrong in a sentence: in the person's language where there is one for it, else the service's own. */
export const problem = (error) => (error?.code && has(`error.${error.code}`) ? t(`error.${error.code}`) : error?.message || error?.error || String(error));

/** Return what a warning says, likewise. */
export const warning = ({ code, message }) => (has(`warning.${code}`) ? t(`warning.${code}`) : message);
