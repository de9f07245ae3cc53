// The page of one item: its first rows, columns, figures, and downloads.

import { api, at, download } from "./api.js";
import { columnTypes, dataTable, preview, statisticsOf, statisticsView } from "./data.js";
import {
  busy,
  button,
  chip,
  crumbs,
  emptyState,
  errorBox,
  formatNumber,
  formatSize,
  formatTime,
  h,
  link,
  newId,
  plural,
  region,
  sentence,
  table,
} from "./dom.js";
import { Input, textInput } from "./fields.js";
import { typed } from "./stored.js";

export async function itemPage({ id, query, signal }) {
  const item = query.get("item") ?? "";
  const source = await api("GET", at("sources", id), { signal });
  const show = async (values) => {
    const rows = await preview(source, item, signal, values).catch((error) => error);
    if (!signal.aborted) body.replaceChildren(tabList(tabsOf(source, item, metadata, rows, values, signal)));
    return rows;
  };
  const body = h("div", {}, h("div", { class: "loading" }, h("div", {}), h("div", {}), h("div", {})));
  const described = api("POST", `${at("sources", id)}/describe`, { body: { item }, signal }).catch((error) => error);
  const stored = item.startsWith("query:") && source.abilities.includes("parameters");
  const early = stored ? null : preview(source, item, signal).catch((error) => error); // while it is described
  const answer = await described;
  if (answer instanceof Error && answer.status === 404) throw answer;
  const metadata = answer.metadata ?? {};
  const form = stored ? new ParameterForm(metadata.parameters ?? {}, show) : null;
  if (early) body.replaceChildren(tabList(tabsOf(source, item, metadata, await early, undefined, signal)));
  else if (form.isComplete) await form.run();
  else body.replaceChildren(emptyState("Give the values", "Then run the query to see its result."));
  const isTable = source.abilities.includes("parameters");
  const names = item.split("/");
  return [
    crumbs(link([], "Sources"), link(["source", id], source.name || id), isTable ? [] : folderLinks(id, names)),
    h(
      "div",
      { class: "row spread" },
      h("h1", { tabindex: "-1" }, isTable ? item : names.at(-1)),
      h(
        "div",
        { class: "row" },
        queryLink(source, metadata),
        downloadButtons(source, item, isTable ? ["csv", "parquet"] : [""], () => form?.values()),
      ),
    ),
    factsOf(metadata),
    (metadata.comment || metadata.description) && h("p", {}, String(metadata.comment ?? metadata.description)),
    answer instanceof Error && errorBox(answer),
    form?.node,
    body,
  ];
}

/** Return the link to a query that begins with a table or view, null for other items. */
function queryLink(source, { kind, identifier }) {
  if (!source.rights.includes("query") || !identifier || !/table|view/.test(kind ?? "")) return null;
  const text = `SELECT *\nFROM ${identifier}\nLIMIT 100`;
  return link(["query"], "Query", { source: source.id, text }, { class: "button" });
}

function folderLinks(id, names) {
  return names
    .slice(0, -1)
    .map((name, depth) => link(["source", id], name, { path: `${names.slice(0, depth + 1).join("/")}/` }));
}

function factsOf(metadata) {
  const exact = metadata.rows !== null && metadata.rows !== undefined;
  const rows = exact ? metadata.rows : metadata.estimated_rows;
  const facts = [
    metadata.kind && chip(String(metadata.kind), "plain"),
    rows !== null && rows !== undefined && h("span", {}, `${exact ? "" : "~"}${plural(rows, "row")}`),
    metadata.columns?.length > 0 && h("span", {}, plural(metadata.columns.length, "column")),
    metadata.size !== null && metadata.size !== undefined && h("span", {}, formatSize(metadata.size)),
    metadata.modified_at && h("span", {}, "changed ", formatTime(metadata.modified_at)),
  ].filter(Boolean);
  return facts.length > 0 && h("p", { class: "row facts dim" }, facts);
}

/** Return the tabs of an item: names, and functions that make their contents. */
function tabsOf(source, item, metadata, rows, values, signal) {
  const failed = rows instanceof Error;
  const types = columnTypes(metadata);
  const tabs = [["Preview", () => (failed ? noPreview(rows) : dataTable(rows, types))]];
  if (metadata.columns?.length) tabs.push(["Columns", () => columnsTable(metadata)]);
  if (!failed) tabs.push(["Statistics", () => statistics(source, item, rows, values, signal)]);
  if (Object.keys(metadata).length) tabs.push(["Details", () => detailsList(metadata)]);
  return tabs;
}

function noPreview(error) {
  const unable = error.slug === "not-supported" || error.status === 501;
  return unable ? emptyState("No preview", sentence(error.message)) : errorBox(error);
}

/** The fields of the parameters of a stored query. */
class ParameterForm {
  constructor(parameters, show) {
    this.show = show;
    this.fields = Object.entries(parameters).map(([name, spec]) => ({
      name,
      spec,
      input: new Input(name, name, parameterControl(spec), parameterHelp(spec)),
    }));
    this.problem = h("div", { "aria-live": "polite" });
    const run = h("button", { type: "submit", class: "primary" }, "Run");
    this.node = h(
      "form",
      {
        class: "box parameters",
        novalidate: true,
        onsubmit: (event) => {
          event.preventDefault();
          busy(run, () => this.run());
        },
      },
      h(
        "div",
        { class: "columns narrow" },
        this.fields.map(({ input }) => input.node),
      ),
      this.problem,
      h("p", { class: "row" }, run),
    );
    this.node.hidden = !this.fields.length;
  }

  /** True if the query can be run without a value that has to be typed. */
  get isComplete() {
    return this.fields.every(({ spec }) => !spec.required);
  }

  values() {
    const given = this.fields.filter(({ input }) => input.control.value !== "");
    return Object.fromEntries(given.map(({ name, spec, input }) => [name, typed(spec.type, input.control.value)]));
  }

  async run() {
    for (const { input } of this.fields) input.showError("");
    const rows = await this.show(this.values());
    if (!(rows instanceof Error)) return;
    const named = /parameter '([^']*)'/.exec(rows.message)?.[1];
    const field = this.fields.find(({ name }) => name === named);
    field?.input.showError(sentence(rows.message));
    field?.input.control.focus();
  }
}

const INPUT_TYPES = { date: "date", timestamp: "datetime-local" };

function parameterControl({ type, choices, default: fallback, required }) {
  const listed = type === "boolean" ? [true, false] : choices;
  if (!listed?.length) {
    const placeholder = fallback === null || fallback === undefined ? "" : String(fallback);
    const inputmode = type === "integer" ? "numeric" : type === "number" ? "decimal" : null;
    return textInput("", {
      placeholder,
      inputmode,
      type: INPUT_TYPES[type] ?? "text",
      step: type === "timestamp" && 1,
    });
  }
  const none = fallback === null || fallback === undefined ? "" : `${fallback}, the default`;
  const options = listed.map((choice) => h("option", { value: String(choice) }, String(choice)));
  return h("select", {}, h("option", { value: "" }, required ? "choose one" : none), options);
}

function parameterHelp({ type, description, required, default: fallback }) {
  const without = fallback === null || fallback === undefined ? "Empty: NULL." : `Empty: ${fallback}.`;
  return [description && sentence(description), `Of the type ${type}.`, !required && without].filter(Boolean).join(" ");
}

/**
 * Return a choice of formats and the button that downloads; `values` returns those of the parameters
 * of a stored query.
 */
export function downloadButtons(source, item, formats, values = () => undefined) {
  const format = h(
    "select",
    { "aria-label": "Format" },
    formats.map((name) => h("option", { value: name }, name.toUpperCase())),
  );
  const text = () => (typeof item === "function" ? item() : item);
  const start = button("Download", () => busy(start, () => download(source.id, text(), format.value, values())));
  return h("div", { class: "row" }, formats.length > 1 && format, start);
}

/** Return tabs; the content of one is made when it is first shown. */
function tabList(entries) {
  const panel = h("div", { role: "tabpanel", tabindex: "0", id: newId("panel") });
  const made = new Map();
  const select = (number, focus) => {
    tabs.forEach((tab, other) => {
      tab.setAttribute("aria-selected", String(other === number));
      tab.tabIndex = other === number ? 0 : -1;
    });
    if (!made.has(number)) made.set(number, entries[number][1]());
    panel.replaceChildren(made.get(number));
    panel.setAttribute("aria-labelledby", tabs[number].id);
    if (focus) tabs[number].focus();
  };
  const tabs = entries.map(([label], number) =>
    button(label, () => select(number), { role: "tab", id: newId("tab"), "aria-controls": panel.id }),
  );
  const bar = h("div", { class: "tabs", role: "tablist", "aria-label": "About the item" }, tabs);
  bar.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step) select((tabs.indexOf(event.target) + step + tabs.length) % tabs.length, true);
  });
  select(0);
  return h("div", {}, bar, panel);
}

function columnsTable(metadata) {
  const keys = new Set(metadata.primary_key ?? []);
  const rows = metadata.columns.map((column) => {
    const entry = typeof column === "string" ? { name: column } : column;
    const notes = [
      keys.has(entry.name) && "primary key",
      entry.nullable === false && "not null",
      entry.generated && "generated",
    ];
    const cells = [entry.type ?? "", notes.filter(Boolean).join(", "), entry.default ?? "", entry.comment ?? ""];
    return h(
      "tr",
      {},
      h("th", { scope: "row" }, entry.name),
      cells.map((cell) => h("td", {}, String(cell))),
    );
  });
  return region("Columns", table("Columns", ["Name", "Type", "Rules", "Default", "Comment"], rows));
}

const isEmpty = (value) => value === null || value === "" || (Array.isArray(value) && !value.length);

/** Return what shows a value: a table of names and values for an object, one line for plain entries. */
function shownValue(value) {
  if (value === null) return "–";
  if (typeof value === "number") return formatNumber(value);
  if (typeof value !== "object") return String(value);
  if (!Array.isArray(value)) return pairsTable(value);
  const plain = value.every((entry) => typeof entry !== "object");
  return plain ? value.join(", ") : value.map((entry) => h("div", {}, shownValue(entry)));
}

function pairsTable(values) {
  const shown = Object.entries(values).filter(([, value]) => !isEmpty(value));
  const rows = shown.map(([name, value]) =>
    h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, shownValue(value))),
  );
  return h("table", { class: "pairs" }, h("tbody", {}, rows));
}

function detailsList(metadata) {
  const shown = ([name, value]) => {
    if (isEmpty(value) || name === "columns") return null;
    const text =
      name === "size" ? formatSize(value) : name.endsWith("_at") ? formatTime(value) : shownValue(value);
    return [h("dt", {}, name.replaceAll("_", " ")), h("dd", {}, text)];
  };
  return h("dl", {}, Object.entries(metadata).map(shown));
}

// The figures that the source computes; null where it has none, as for a CSV file.
async function computedStatistics(source, item, values, signal) {
  if (!source.abilities.includes("statistics")) return null;
  const body = { item, ...(values && { parameters: values }) };
  try {
    return (await api("POST", `${at("sources", source.id)}/statistics`, { body, signal, exact: true })).columns;
  } catch (error) {
    if (error.status === 501) return null;
    throw error;
  }
}

function statistics(source, item, rows, values, signal) {
  const box = h("div", { "aria-live": "polite" }, h("p", { class: "dim" }, "Computing…"));
  const load = async () => {
    try {
      const computed = await computedStatistics(source, item, values, signal);
      box.replaceChildren(statisticsView(computed ?? statisticsOf(rows), rows, computed !== null));
    } catch (error) {
      if (error.name !== "AbortError") box.replaceChildren(errorBox(error, load));
    }
  };
  load();
  return box;
}
