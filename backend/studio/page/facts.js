// What was really done, in words that a person understands.

import { h, icon } from "./dom.js";
import { number, seconds, t, warning } from "./i18n.js";

const STAGES = ["queued", "preprocess", "encode", "sample", "decode", "mesh", "finish", "export"];

/** Return the size as width × depth × height, in millimetres or what reads better. */
export function sizeOf(metadata) {
  let sides = metadata.print?.fits_mm;
  if (!sides && metadata.bounds) {
    const factor = metadata.unit === "m" ? 1000 : 1;
    sides = metadata.bounds[0].map((low, axis) => (metadata.bounds[1][axis] - low) * factor);
  }
  if (!sides) return "";
  const [factor, unit] = Math.max(...sides) >= 1000 ? [0.001, "m"] : [1, "mm"];
  return `${sides.map((side) => number(side * factor, unit === "m" ? 2 : side < 10 ? 1 : 0)).join(" × ")} ${unit}`;
}

/** Return a definition list of a finished job. */
export function facts(job) {
  const m = job.metadata;
  if (!m) return h("dl");
  const rows = [
    ["faces", m.faces && (m.faces_found > m.faces * 1.02 ? t("fact.faces_of", { n: number(m.faces), found: number(m.faces_found) }) : number(m.faces))],
    ["closed", m.watertight === null ? "" : t(m.watertight ? "fact.closed_yes" : "fact.closed_no")],
    ["parts", m.parts > 1 ? number(m.parts) : ""],
    ["wall", m.print?.thinnest_wall_mm ? `${number(m.print.thinnest_wall_mm, 1)} mm` : ""],
    ["seed", String(m.seed)],
    ["quality", t("fact.quality_value", { quality: m.quality, resolution: m.octree_resolution, steps: m.steps ?? "–" })],
    ["time", m.seconds.total ? seconds(m.seconds.total) : ""],
  ];
  return h("dl", { class: "facts" }, rows.filter(([, value]) => value).map(([name, value]) => h("div", {}, h("dt", {}, t(`fact.${name}`)), h("dd", {}, value))));
}

/** Return how long each stage took, as bars with their seconds. */
export function stages(job) {
  const taken = STAGES.map((name) => [name, job.metadata?.seconds[name]]).filter(([, value]) => value > 0.005);
  const most = Math.max(...taken.map(([, value]) => value), 0.01);
  const rows = taken.map(([name, value]) => h("tr", {}, h("th", { scope: "row" }, t(`stage.${name}`)), h("td", {}, h("meter", { max: most, value, "aria-label": t(`stage.${name}`) })), h("td", { class: "n" }, seconds(value))));
  return h("table", { class: "stages" }, h("caption", { class: "unseen" }, t("fact.stages")), h("tbody", {}, rows));
}

/** Return what there is to warn of, as a list; null where nothing is. */
export function warnings(job) {
  const found = job.metadata?.warnings ?? [];
  const notes = job.metadata?.notes ?? [];
  if (!found.length && !notes.length) return null;
  return h("ul", { class: "warnings" }, found.map((each) => h("li", {}, icon("warn"), warning(each))), notes.map((note) => h("li", { class: "note" }, note)));
}
