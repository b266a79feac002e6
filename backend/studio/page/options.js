// What may be chosen about a mesh, folded away with good defaults; what the service cannot do is not shown.

import { h } from "./dom.js";
import { number, t } from "./i18n.js";

const pick = (name, choices, chosen) =>
  h("select", { id: `o-${name}`, name }, choices.map(([value, text]) => h("option", { value, selected: value === chosen }, text)));
const field = (name, input, hint) =>
  h("div", { class: "field" }, h("label", { htmlFor: `o-${name}` }, t(`opt.${name}`)), input, hint && h("p", { class: "hint", id: `h-${name}` }, hint));

/** Return the fields as an element, and `read()`, which gives them as form parts. */
export function optionFields(capabilities) {
  const quality = h("input", { id: "o-quality", name: "quality", type: "range", min: 1, max: 10, value: 7 });
  const level = h("output", { for: "o-quality" });
  const describe = () => {
    const step = Math.min(3, Math.floor((quality.value - 1) / 2.5));
    level.textContent = `${quality.value} · ${t(`quality.${step}`)}`;
    quality.setAttribute("aria-valuetext", level.textContent);
  };
  quality.addEventListener("input", describe);
  describe();
  const entry = (name, attributes) => h("input", { id: `o-${name}`, name, type: "number", inputmode: "decimal", ...attributes });
  const formats = capabilities.formats.map((format) => [format, format.toUpperCase()]);
  const candidates = capabilities.candidates;
  const element = h(
    "div", { class: "options" },
    h("div", { class: "field wide" }, h("div", { class: "row" }, h("label", { htmlFor: "o-quality" }, t("opt.quality")), level), quality),
    field("format", pick("format", formats, "glb")),
    field("scale_mm", entry("scale_mm", { min: 0.1, max: 10000, step: "any", placeholder: "100" })),
    field("color", pick("color", ["auto", "texture", "vertex", "none"].map((value) => [value, t(`color.${value}`)]), "auto")),
    field("target_faces", entry("target_faces", { min: 100, max: 2000000, step: 1, placeholder: t("opt.auto") })),
    field("remove_background", pick("remove_background", ["auto", "always", "never"].map((value) => [value, t(`cut.${value}`)]), "auto")),
    field("objects", pick("objects", ["all", "largest"].map((value) => [value, t(`objects.${value}`)]), "all")),
    field("seed", entry("seed", { min: 0, max: 4294967295, step: 1, placeholder: t("opt.drawn") })),
    candidates ? field("candidates", pick("candidates", [1, 2, 3, 4].map((n) => [String(n), number(n)]), "1")) : null,
  );
  const read = () => {
    const value = (name) => element.querySelector(`[name=${name}]`)?.value ?? "";
    const chosen = value("format");
    const parts = ["quality", "scale_mm", "color", "target_faces", "remove_background", "objects", "seed"].map((name) => [name, value(name)]);
    if (Number(value("candidates")) > 1) parts.push(["candidates", value("candidates")], ["keep", "all"]);
    // What is shown is a GLB, whatever else is wanted.
    return [["format", chosen === "glb" ? "glb" : `${chosen},glb`], ...parts];
  };
  const isValid = () => [...element.querySelectorAll("input")].every((input) => input.reportValidity());
  return { element, read, isValid };
}
