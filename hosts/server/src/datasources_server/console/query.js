// Queries: an editor, the first rows of the result with their types, and what can be done with it.

import { api, at, session } from "./api.js";
import { columnTypes, dataTable, preview } from "./data.js";
import {
  address,
  busy,
  button,
  emptyState,
  errorBox,
  formatSeconds,
  h,
  labelled,
  link,
  openDialog,
  plural,
  say,
  sentence,
} from "./dom.js";
import { downloadButtons } from "./item.js";
import { QueryCard } from "./stored.js";

const draftKey = (id) => `datasources.draft.${id}`;

export async function queryPage({ me, query, signal }) {
  const sources = await queryable(signal);
  const title = h("h1", { tabindex: "-1" }, "Query");
  if (!sources.length) {
    const text = me.admin
      ? "Queries need a database among the sources."
      : "No source is granted to you with the right to query.";
    return [
      title,
      emptyState("Nothing to query", text, me.admin && link(["add"], "Add source", {}, { class: "button" })),
    ];
  }
  const select = h(
    "select",
    {},
    sources.map((source) =>
      h(
        "option",
        { value: source.id, selected: source.id === query.get("source") },
        source.name === source.id ? source.id : `${source.name} (${source.id})`,
      ),
    ),
  );
  const chosen = () => sources.find((source) => source.id === select.value);
  const editor = h("textarea", {
    rows: 8,
    class: "code",
    spellcheck: "false",
    autocapitalize: "off",
    placeholder: "SELECT …",
  });
  const result = h("div", { "aria-live": "polite" });
  const time = h("span", { class: "dim", role: "status" });
  let running = null;

  const given = query.get("text");
  const restore = () => (editor.value = sessionStorage.getItem(draftKey(select.value)) ?? "");
  const keep = () => session.token && sessionStorage.setItem(draftKey(select.value), editor.value);
  const text = () => {
    // What is selected, if something is.
    const { selectionStart: start, selectionEnd: end, value } = editor;
    const part = (start === end ? value : value.slice(start, end)).trim();
    if (!part) throw new Error("write a query first");
    return part.replace(/;\s*$/, "");
  };

  const execute = async () => {
    const item = text();
    const source = chosen();
    running = new AbortController();
    const stop = AbortSignal.any([running.signal, signal]);
    const began = performance.now();
    const ticking = setInterval(() => (time.textContent = formatSeconds((performance.now() - began) / 1000)), 200);
    cancel.hidden = false;
    run.hidden = true;
    try {
      const rows = await preview(source, item, stop);
      clearInterval(ticking);
      time.textContent = `${plural(rows.rows.length, "row")} in ${formatSeconds((performance.now() - began) / 1000)}`;
      const described = await api("POST", `${at("sources", source.id)}/describe`, {
        body: { item },
        signal: stop,
      }).catch(() => ({ metadata: {} }));
      result.replaceChildren(dataTable(rows, columnTypes(described.metadata)));
    } catch (error) {
      if (signal.aborted) return;
      time.textContent = error.name === "AbortError" ? "Cancelled; the database was told to stop." : "";
      result.replaceChildren(error.name === "AbortError" ? "" : errorBox(error));
    } finally {
      clearInterval(ticking);
      const focused = document.activeElement === cancel;
      cancel.hidden = true;
      run.hidden = false;
      if (focused) run.focus();
    }
  };
  const start = () => busy(run, execute);
  const run = button("Run", start, { class: "primary", title: "Ctrl+Enter" });
  const cancel = button("Cancel", () => running?.abort(), { hidden: true });
  const store =
    me.admin && button("Save as stored query", () => busy(store, () => storeDialog(chosen(), text(), signal)));

  editor.addEventListener("input", keep);
  editor.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      if (!run.hidden) start();
    }
  });
  select.addEventListener("change", restore);
  restore();
  if (given) {
    // Behind what is typed already, and selected, so that it is what runs.
    const draft = editor.value.trimEnd();
    editor.value = draft && draft !== given ? `${draft}\n\n${given}` : given;
    editor.setSelectionRange(editor.value.length - given.length, editor.value.length);
    history.replaceState(null, "", address(["query"], { source: select.value }));
    keep();
  }
  const showItems = () => (items.href = address(["source", select.value]));
  const items = h("a", {}, "Items of the source");
  select.addEventListener("change", showItems);
  showItems();
  return [
    title,
    h("div", { class: "row spread" }, labelled("Source", select), items),
    labelled("Query", editor, "One statement that reads. Ctrl+Enter runs it, or what is selected of it."),
    h(
      "div",
      { class: "row actions" },
      run,
      cancel,
      downloadButtons(
        {
          get id() {
            return select.value;
          },
        },
        text,
        ["csv", "parquet"],
      ),
      store,
      time,
    ),
    result,
  ];
}

/** Return the sources that the caller may send queries to. */
async function queryable(signal) {
  const found = [];
  let cursor = null;
  do {
    const page = await api("GET", "sources", { query: { limit: 200, cursor }, signal });
    found.push(
      ...page.items.filter(
        (source) =>
          source.state === "ready" && source.rights.includes("query") && source.abilities.includes("parameters"),
      ),
    );
    cursor = page.next_cursor;
  } while (cursor);
  return found;
}

async function storeDialog({ id }, text, signal) {
  const card = new QueryCard("", { text });
  const fail = (place, reason) => {
    place.showError(sentence(reason));
    place.control.focus();
    return false; // the dialog stays
  };
  const run = async () => {
    for (const place of card.places) place.showError("");
    const source = await api("GET", at("sources", id), { signal });
    if (!card.id) return fail(card.name, "must be given");
    if (Object.hasOwn(source.queries, card.id)) return fail(card.name, "there is such a query; take another name");
    const body = { queries: { [card.id]: card.value() } };
    try {
      await api("PATCH", at("sources", id), { body, version: source.version });
    } catch (error) {
      const [problem] = error.errors;
      const place = card.places.find(({ pointers: [own] }) => own === problem?.pointer);
      if (place) return fail(place, problem.detail);
      throw error;
    }
    return say(`Stored as query:${card.id}, among the items of ${id}.`);
  };
  const content = [h("p", {}, "Everybody who may read the source can use it, without the right to query."), card.node];
  const actions = [{ label: "Cancel" }, { label: "Save", value: true, kind: "primary", run }];
  await openDialog("Save as stored query", content, actions, { wide: true });
}
