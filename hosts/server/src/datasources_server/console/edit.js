// The pages that add and edit sources.

import { api, at } from "./api.js";
import { resolveConflict } from "./conflict.js";
import { crumbs, h, icon, link, say, sentence, typeName } from "./dom.js";
import { SourceForm } from "./form.js";
import { guardForm } from "./unsaved.js";

function requireAdmin(me) {
  if (!me.admin) throw new Error("only administrators add and edit sources");
}

export async function typesPage({ me, signal }) {
  requireAdmin(me);
  const types = (await api("GET", "types", { signal })).items;
  const card = (entry) => {
    const ready = entry.state === "ready";
    const title = [typeIcon(entry), typeName(entry.type)];
    return h(
      "li",
      { class: ready ? null : "unusable" },
      ready ? link(["add", entry.type], title, {}, { class: "name" }) : h("span", { class: "name" }, title),
      h("span", { class: "dim small" }, [entry.distribution, entry.version].filter(Boolean).join(" ")),
      entry.reason && h("p", { class: "small" }, sentence(entry.reason)),
    );
  };
  return [
    crumbs(link([], "Sources")),
    h("h1", { tabindex: "-1" }, "Add a source"),
    h("p", { class: "dim" }, "Choose what you want to connect."),
    h("ul", { class: "cards" }, types.map(card)),
  ];
}

const typeIcon = ({ abilities }) => icon(abilities.includes("parameters") ? "database" : "folder");

export async function newPage({ id: type, me, signal, go }) {
  requireAdmin(me);
  const description = await api("GET", at("types", type), { signal });
  const form = new SourceForm(description, null);
  const save = async (test) => {
    const { id, body } = form.read();
    await api("PUT", at("sources", id), {
      body: { type, ...body },
      query: { test },
      headers: { "If-None-Match": "*" },
    });
    form.keep();
    say(`Added ${id}.`);
    return go(["source", id]);
  };
  const options = () => ({ type, options: form.read().body.options });
  const test = () => api("POST", "test", { body: options() });
  const discover = () => api("POST", "discover", { body: options() });
  const node = form.build({ save, test, discover });
  guardForm(() => form.isChanged, signal);
  return [
    crumbs(link([], "Sources"), link(["add"], "Add")),
    h("h1", { tabindex: "-1" }, `Add ${typeName(type)}`),
    node,
  ];
}

export async function editPage({ id, me, signal, go, reload }) {
  requireAdmin(me);
  const source = await api("GET", at("sources", id), { signal });
  const description = await api("GET", at("types", source.type), { signal });
  const form = new SourceForm(description, source);
  let version = source.version;
  const save = async (test) => {
    const patch = form.patch();
    if (!Object.keys(patch).length) {
      say("Nothing has changed.");
      return go(["source", id]);
    }
    try {
      await api("PATCH", at("sources", id), { body: patch, version, query: { test } });
    } catch (error) {
      if (error.status !== 412) throw error;
      const stored = await api("GET", at("sources", id));
      const choice = await resolveConflict(source, stored, patch, form.fields);
      if (choice === "stored") return reload();
      if (choice !== "mine") return undefined;
      version = stored.version;
      return save(test);
    }
    form.keep();
    say(`Saved ${id}.`);
    return go(["source", id]);
  };
  const test = () => api("POST", `${at("sources", id)}/test`, { body: form.patch() });
  const node = form.build({ save, test });
  guardForm(() => form.isChanged, signal);
  return [
    crumbs(link([], "Sources"), link(["source", id], source.name || id)),
    h("h1", { tabindex: "-1" }, `Edit ${source.name || id}`),
    node,
  ];
}
