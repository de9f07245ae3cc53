// The items of a source: folders, and patterns.

import { api, at } from "./api.js";
import { emptyState, errorBox, formatSize, formatTime, h, icon, link, plural } from "./dom.js";
import { LongList } from "./list.js";
import { uploadButton } from "./upload.js";

const PAGE = 200;

/** Return the list of the items of a source, below the folder or by the pattern of the address. */
export async function browser(source, { query, signal, go, reload }) {
  const typed = query.get("q") ?? query.get("pattern") ?? "";
  // A part of a name becomes the pattern that finds it in all folders.
  const pattern = !typed || /[*?[]/.test(typed) ? typed : `**/*${typed}*`;
  // Databases have no folders; the topmost folder of other sources is "/".
  const path = query.get("path") ?? (source.abilities.includes("parameters") ? "" : "/");
  const count = h("p", { class: "dim", role: "status" });
  const holder = h("div", {});
  const box = h("input", {
    type: "search",
    value: typed,
    placeholder: "Part of a name, or **/*.csv",
    "aria-label": "Search items",
  });
  const search = (event) => {
    event.preventDefault();
    go(["source", source.id], { q: box.value.trim() });
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
            pattern ? `No item has a path like ${pattern}.` : "There are no items in this folder.",
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
  const takesFiles = source.rights.includes("write") && source.abilities.includes("upload");
  const upload = takesFiles && uploadButton(source, path === "/" || pattern ? "" : path, reload);
  return h(
    "section",
    { "aria-label": "Items" },
    h("div", { class: "row spread" }, h("h2", {}, "Items"), upload && upload.control),
    upload && upload.problem,
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
