// The list of sources, and the page of one: its state, what can be done with it, and its items.

import { api, at } from "./api.js";
import {
  busy,
  button,
  chip,
  confirm,
  crumbs,
  emptyState,
  errorBox,
  formatSeconds,
  formatTime,
  h,
  icon,
  labelled,
  link,
  openDialog,
  plural,
  region,
  say,
  sentence,
  table,
  typeName,
} from "./dom.js";
import { browser } from "./items.js";
import { Pager } from "./list.js";

const PAGE = 50;

const stateChip = (source) => chip(source.state, source.state, source.reason);

export async function sourcesPage({ me, signal, query }) {
  const types = (await api("GET", "types", { signal })).items;
  const list = h("div", { "aria-live": "polite" });
  const filter = h("input", {
    type: "search",
    placeholder: "Filter by name or id",
    "aria-label": "Filter sources",
    value: query.get("q") ?? "",
  });
  const type = h(
    "select",
    { "aria-label": "Type" },
    h("option", { value: "" }, "All types"),
    types.map((entry) => h("option", { value: entry.type }, typeName(entry.type))),
  );
  const load = async () => {
    const isLatest = pager.ask();
    try {
      const parameters = { q: filter.value.trim(), type: type.value, limit: PAGE, cursor: pager.cursor };
      const page = await api("GET", "sources", { query: parameters, signal });
      if (isLatest()) list.replaceChildren(...content(page));
    } catch (error) {
      if (error.name !== "AbortError" && isLatest()) list.replaceChildren(errorBox(error, load));
    }
  };
  const pager = new Pager("Pages of sources", load);
  const content = (page) => {
    if (!page.items.length && pager.cursor === null) return [nothing()];
    return [sourcesTable(page.items), pager.controls(page.next_cursor)].filter(Boolean);
  };
  const nothing = () => {
    if (filter.value || type.value) {
      const clear = button("Clear the filter", () => ((filter.value = type.value = ""), pager.restart()));
      return emptyState("Nothing matches", "No source has this in its name or id.", clear);
    }
    if (!me.admin)
      return emptyState("No sources", "No source is granted to you yet. Administrators grant them with tokens.");
    const usable = types.filter((entry) => entry.state === "ready");
    const text = "A source is a database, a container or a directory. Choose what to connect first:";
    return emptyState(
      "No sources yet",
      text,
      usable.map((entry) => link(["add", entry.type], typeName(entry.type), {}, { class: "button" })),
    );
  };

  let typing = 0;
  filter.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => pager.restart(), 150);
  });
  type.addEventListener("change", () => pager.restart());
  await load();
  const add = me.admin && link(["add"], "Add source", {}, { class: "button primary" });
  return [
    h("div", { class: "row spread" }, h("h1", { tabindex: "-1" }, "Sources"), add),
    h("div", { class: "row toolbar", role: "search" }, filter, type),
    list,
  ];
}

function sourcesTable(items) {
  const rows = items.map((source) =>
    h(
      "tr",
      {},
      h(
        "td",
        {},
        link(
          ["source", source.id],
          [icon(source.abilities.includes("parameters") ? "database" : "folder"), source.name || source.id],
          {},
          { class: "name" },
        ),
        source.name && source.name !== source.id && h("span", { class: "dim small" }, ` ${source.id}`),
      ),
      h("td", {}, typeName(source.type)),
      h(
        "td",
        {},
        stateChip(source),
        source.reason && h("span", { class: "dim small clip", title: source.reason }, source.reason),
      ),
      h("td", { class: "wide-only dim" }, source.rights.join(", ")),
    ),
  );
  return region("Sources", table("Sources", ["Name", "Type", "State", "Your rights"], rows, { wide: [3] }));
}

export async function sourcePage(page) {
  const { id, me, signal, go, query, reload } = page;
  const source = await api("GET", at("sources", id), { signal });
  const facts = h(
    "div",
    { class: "row facts" },
    stateChip(source),
    h("span", { class: "dim" }, typeName(source.type)),
    h("span", { class: "dim" }, source.id),
  );
  const outcome = h("div", { "aria-live": "polite" });
  const reason = source.reason && h("p", { class: "box note" }, sentence(source.reason));
  const readable = source.rights.includes("read") && source.state === "ready";
  return [
    crumbs(link([], "Sources")),
    h(
      "div",
      { class: "row spread" },
      h("h1", { tabindex: "-1" }, source.name || source.id),
      actions(source, page, outcome),
    ),
    facts,
    reason,
    outcome,
    me.admin && details(source),
    readable && (await browser(source, { query, signal, go, reload })),
  ];
}

/** Return the buttons of a source; `outcome` shows what a test says. */
function actions(source, { me, go, reload }, outcome) {
  const route = (action) => `${at("sources", source.id)}/${action}`;
  const test = button("Test", (event) =>
    busy(event.currentTarget, async () => outcome.replaceChildren(testResult(await api("POST", route("test"))))),
  );
  const queryable = source.rights.includes("query") && source.abilities.includes("parameters");
  const open = queryable && link(["query"], "Query", { source: source.id }, { class: "button" });
  if (!me.admin) return h("div", { class: "row" }, open, test);
  const resume = async () => {
    await api("POST", route("resume"));
    say(`Resumed ${source.id}.`);
    reload();
  };
  const pause =
    source.state === "paused"
      ? button("Resume", (event) => busy(event.currentTarget, resume))
      : button("Pause", () => pauseDialog(source, route("pause"), reload));
  const remove = button(
    "Delete",
    async () => {
      const text = `${source.name} (${source.id}) is removed with its options and secrets. What it connects to is not touched. This cannot be undone.`;
      const run = () => api("DELETE", at("sources", source.id));
      if (!(await confirm("Delete the source?", text, "Delete", { run }))) return;
      say(`Deleted ${source.id}.`);
      go([]);
    },
    { class: "danger" },
  );
  return h(
    "div",
    { class: "row" },
    open,
    test,
    me.tokens && link(["tokens"], "Give access", { grant: source.id }, { class: "button" }),
    link(["edit", source.id], "Edit", {}, { class: "button" }),
    pause,
    remove,
  );
}

export function testResult(check) {
  if (check.ok)
    return h("p", { class: "box good" }, `It works: the source answered in ${formatSeconds(check.seconds)}.`);
  return h(
    "div",
    { class: "box error", role: "alert" },
    h("p", {}, sentence(check.error?.message ?? "The source does not answer")),
  );
}

async function pauseDialog(source, route, reload) {
  const reason = h("input", { type: "text", required: true, maxlength: 500 });
  const run = async () => {
    if (!reason.value.trim()) throw new Error("give a reason; everybody who uses the source reads it");
    await api("POST", route, { body: { reason: reason.value.trim() } });
  };
  const content = [
    h("p", {}, "Every operation on it is refused until it is resumed."),
    labelled("Reason", reason, "Shown to everybody who uses the source."),
  ];
  if (
    !(await openDialog(`Pause ${source.name}`, content, [
      { label: "Cancel" },
      { label: "Pause", value: true, kind: "primary", run },
    ]))
  )
    return;
  say(`Paused ${source.id}.`);
  reload();
}

function details(source) {
  const secrets = Object.entries(source.secrets).filter(([, secret]) => secret.set);
  const options = Object.entries(source.options).filter(([name]) => !(name in source.secrets));
  const entry = (name, ...value) => [h("dt", {}, name), h("dd", {}, value)];
  return h(
    "details",
    {},
    h("summary", {}, `Settings: ${plural(options.length + secrets.length, "option")}, version ${source.version}`),
    h(
      "dl",
      {},
      options.map(([name, value]) => entry(name, typeof value === "string" ? value : JSON.stringify(value))),
      secrets.map(([name, secret]) =>
        entry(name, "set", h("span", { class: "dim small" }, ` fingerprint ${secret.fingerprint}`)),
      ),
      source.limits &&
        Object.entries(source.limits).map(([name, value]) => entry(`limit: ${name}`, value ?? "no limit")),
      Object.entries(source.queries).map(([name, stored]) =>
        entry(`query: ${name}`, stored.description || stored.text),
      ),
      Object.entries(source.metadata).map(([name, value]) =>
        entry(`metadata: ${name}`, typeof value === "string" ? value : JSON.stringify(value)),
      ),
      entry("created", formatTime(source.created_at)),
    ),
  );
}
