// The items of a source: folders, patterns, and the page of one item.

import { api, at, download } from "./api.js";
import {
  busy,
  button,
  emptyState,
  errorBox,
  formatNumber,
  formatSize,
  formatTime,
  h,
  icon,
  link,
  newId,
  plural,
  region,
  table,
} from "./dom.js";
import { LongList } from "./list.js";
import { columnTypes, dataTable, preview, statisticsOf, statisticsView } from "./data.js";

const PAGE = 200;

/** Return the list of the items of a source, below the folder or by the pattern of the address. */
export async function browser(source, { query, signal, go }) {
  const pattern = query.get("pattern") ?? "";
  // Databases have no folders; the topmost folder of other sources is "/".
  const path = query.get("path") ?? (source.abilities.includes("parameters") ? "" : "/");
  const count = h("p", { class: "dim", role: "status" });
  const holder = h("div", {});
  const box = h("input", {
    type: "search",
    value: pattern,
    placeholder: "Search: part of a name, or a pattern such as **/*.csv",
    "aria-label": "Search items",
  });
  const search = (event) => {
    event.preventDefault();
    const text = box.value.trim();
    // A part of a name becomes the pattern that finds it in all folders.
    const glob = !text || /[*?[]/.test(text) ? text : `**/*${text}*`;
    go(["source", source.id], { pattern: glob });
  };
  const form = h(
    "form",
    { class: "row", role: "search", onsubmit: search },
    box,
    h("button", { type: "submit" }, "Search"),
    pattern && link(["source", source.id], "Clear", {}, { class: "button" }),
  );
  const route = `${at("sources", source.id)}/items`;

  const list = async (folder) => {
    const parameters = pattern ? { pattern } : { path: folder };
    const items = new LongList({
      label: "Items",
      columns: ["Name", "Size", "Changed"],
      signal,
      load: (cursor) => api("GET", route, { query: { ...parameters, limit: PAGE, cursor }, signal }),
      row: (item) => itemCells(source, item, Boolean(pattern)),
      changed: (rows, complete) =>
        (count.textContent = complete ? plural(rows, "item") : `${plural(rows, "item")} so far; more as you scroll`),
    });
    await items.begin();
    if (!items.count && folder === "/" && !pattern) return list(""); // has no folders
    holder.replaceChildren(
      items.count
        ? items.node
        : emptyState(
            pattern ? "Nothing matches" : "Nothing here",
            pattern ? "No item has a path of this pattern." : "There are no items in this folder.",
          ),
    );
    return undefined;
  };
  const start = async () => {
    try {
      await list(path);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      if (path === "/" && !query.has("path") && error.status === 404) await list("");
      else holder.replaceChildren(errorBox(error, start));
    }
  };
  await start();
  return h(
    "section",
    { "aria-label": "Items" },
    h("h2", {}, "Items"),
    form,
    pattern ? null : folderPath(source, path),
    count,
    holder,
  );
}

/** Return the links to the folders that a path lies in. */
function folderPath(source, path) {
  const names = path.split("/").filter(Boolean);
  if (!names.length) return null;
  const links = names
    .slice(0, -1)
    .map((name, depth) => link(["source", source.id], name, { path: `${names.slice(0, depth + 1).join("/")}/` }));
  return h(
    "nav",
    { class: "crumbs", "aria-label": "Folder" },
    link(["source", source.id], source.name),
    links,
    h("span", { "aria-current": "page" }, names.at(-1)),
  );
}

function itemCells(source, item, whole) {
  const { kind, estimated_rows: rows, comment, description } = item.metadata;
  const folder = kind === "folder";
  const shown = whole || source.abilities.includes("parameters") ? item.path : item.name;
  const target = folder
    ? link(["source", source.id], shown, { path: item.path })
    : link(["item", source.id], shown, { item: item.path });
  target.prepend(
    icon(
      folder
        ? "folder"
        : item.path.startsWith("query:")
          ? "query"
          : kind === "table" || kind === "view"
            ? "table"
            : "file",
    ),
  );
  target.title = comment ?? description ?? item.path;
  const size =
    item.size === null ? (rows ? `~${plural(rows, "row")}` : folder ? "" : (kind ?? "")) : formatSize(item.size);
  return [target, size, formatTime(item.modified_at)];
}

export async function itemPage({ id, query, signal }) {
  const item = query.get("item") ?? "";
  const source = await api("GET", at("sources", id), { signal });
  const route = (action) => `${at("sources", id)}/${action}`;
  const described = api("POST", route("describe"), { body: { item }, signal }).catch((error) => error);
  const previewed = preview(source, item, signal).catch((error) => error);
  const answer = await described;
  if (answer instanceof Error && answer.status === 404) throw answer;
  const metadata = answer.metadata ?? {};
  const names = item.split("/");
  const isTable = source.abilities.includes("parameters");
  const folders = isTable
    ? []
    : names
        .slice(0, -1)
        .map((name, depth) => link(["source", id], name, { path: `${names.slice(0, depth + 1).join("/")}/` }));
  const rows = await previewed;
  const types = columnTypes(metadata);
  const tabs = [["Preview", () => (rows instanceof Error ? errorBox(rows) : dataTable(rows, types))]];
  if (metadata.columns?.length) tabs.push(["Columns", () => columnsTable(metadata)]);
  if (!(rows instanceof Error)) tabs.push(["Statistics", () => statistics(source, item, rows, signal)]);
  if (Object.keys(metadata).length) tabs.push(["Details", () => detailsList(metadata)]);
  const facts = [metadata.kind, metadata.rows ?? metadata.estimated_rows, metadata.size, metadata.modified_at];
  return [
    h(
      "nav",
      { class: "crumbs", "aria-label": "Breadcrumb" },
      link([], "Sources"),
      link(["source", id], source.name),
      folders,
    ),
    h(
      "div",
      { class: "row spread" },
      h("h1", { tabindex: "-1" }, isTable ? item : names.at(-1)),
      downloadButtons(source, item, isTable ? ["csv", "parquet"] : [""]),
    ),
    h(
      "p",
      { class: "row facts dim" },
      facts[0] && h("span", {}, String(facts[0])),
      facts[1] !== undefined &&
        facts[1] !== null &&
        h("span", {}, `${metadata.rows === null || metadata.rows === undefined ? "~" : ""}${plural(facts[1], "row")}`),
      facts[2] !== undefined && facts[2] !== null && h("span", {}, formatSize(facts[2])),
      facts[3] && h("span", {}, "changed ", formatTime(facts[3])),
    ),
    metadata.comment && h("p", {}, String(metadata.comment)),
    answer instanceof Error && errorBox(answer),
    tabList(tabs),
  ];
}

/** Return a choice of formats and the button that downloads. */
export function downloadButtons(source, item, formats) {
  const format = h(
    "select",
    { "aria-label": "Format" },
    formats.map((name) => h("option", { value: name }, name.toUpperCase())),
  );
  const text = () => (typeof item === "function" ? item() : item);
  const start = button("Download", () => busy(start, () => download(source.id, text(), format.value)));
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
  const head = ["Name", "Type", "Rules", "Default", "Comment"].map((label) => h("th", { scope: "col" }, label));
  return region("Columns", h("table", { class: "list" }, h("thead", {}, h("tr", {}, head)), h("tbody", {}, rows)));
}

function detailsList(metadata) {
  const shown = ([name, value]) => {
    if (value === null || name === "columns" || (Array.isArray(value) && !value.length)) return null;
    const text =
      name === "size"
        ? formatSize(value)
        : name.endsWith("_at")
          ? formatTime(value)
          : typeof value === "object"
            ? h("pre", {}, JSON.stringify(value, null, 2))
            : typeof value === "number"
              ? formatNumber(value)
              : String(value);
    return [h("dt", {}, name.replaceAll("_", " ")), h("dd", {}, text)];
  };
  return h("dl", {}, Object.entries(metadata).map(shown));
}

function statistics(source, item, rows, signal) {
  const box = h("div", { "aria-live": "polite" }, h("p", { class: "dim" }, "Computing…"));
  const load = async () => {
    try {
      const able = source.abilities.includes("statistics");
      const route = `${at("sources", source.id)}/statistics`;
      const columns = able ? (await api("POST", route, { body: { item }, signal })).columns : statisticsOf(rows);
      box.replaceChildren(statisticsView(columns, rows, able));
    } catch (error) {
      if (error.name !== "AbortError") box.replaceChildren(errorBox(error, load));
    }
  };
  load();
  return box;
}
