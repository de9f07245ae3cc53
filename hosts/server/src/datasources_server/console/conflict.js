// The dialog of a source that somebody else has changed meanwhile.

import { h, openDialog, region, table } from "./dom.js";
import { same } from "./fields.js";

/** Ask what to do about a source that somebody else has changed; returns `mine`, `stored` or null. */
export async function resolveConflict(base, stored, patch, fields) {
  const rows = [
    row("Name", base.name, stored.name, patch.name, "name" in patch),
    ...fields.map((field) => (field.spec.secret ? secretRow : optionRow)(field, base, stored, patch.options ?? {})),
    row("Limits", base.limits, stored.limits, patch.limits, "limits" in patch),
    ...partRows("Query", base.queries, stored.queries, patch.queries ?? {}),
    ...partRows("Metadata", base.metadata, stored.metadata, patch.metadata ?? {}),
  ].filter(Boolean);
  const content = [
    h("p", {}, `Somebody else has changed it: it has version ${stored.version}, and you began with ${base.version}.`),
    region("Both versions", table("Both versions", ["Setting", "Stored now", "Yours"], rows)),
    h("p", { class: "help" }, "If you save yours, only what you have changed is written; other changes stay."),
  ];
  const actions = [
    { label: "Back to the form" },
    { label: "Take the stored version", value: "stored" },
    { label: "Save mine", value: "mine", kind: "primary" },
  ];
  return openDialog("Two versions of this source", content, actions, { wide: true });
}

/** Return the row of what either side has changed, null if neither has. */
function row(label, before, now, mine, touched) {
  if (!touched && same(before, now)) return null;
  return line(label, text(now), touched ? text(mine) : null);
}

function line(label, now, mine) {
  const yours = mine ?? h("span", { class: "dim" }, "not changed by you");
  return h("tr", {}, h("th", { scope: "row" }, label), h("td", {}, now), h("td", {}, yours));
}

function text(value) {
  if (value === undefined || value === null) return "–";
  return typeof value === "string" ? value : JSON.stringify(value);
}

function optionRow(field, base, stored, options) {
  const key = field.key;
  return row(field.label, base.options[key], stored.options[key], options[key], key in options);
}

function secretRow(field, base, stored, options) {
  const [before, now] = [base, stored].map((source) => source.secrets[field.spec.name]?.fingerprint ?? null);
  const touched = field.key in options;
  if (!touched && before === now) return null;
  const state = now === null ? "not set" : now === before ? "set" : "replaced by somebody else";
  return line(field.label, state, touched ? (options[field.key] === null ? "removed" : "replaced") : null);
}

function partRows(title, before, now, patch) {
  const names = [...new Set([...Object.keys(before), ...Object.keys(now), ...Object.keys(patch)])];
  return names.map((name) => row(`${title} ${name}`, before[name], now[name], patch[name], name in patch));
}
