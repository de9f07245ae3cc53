// The audit trail: who did what with which source, and who was refused.

import { api } from "./api.js";
import {
  button,
  chip,
  emptyState,
  errorBox,
  formatNumber,
  formatSeconds,
  formatSize,
  formatTime,
  h,
  labelled,
  link,
  newId,
  region,
  table,
} from "./dom.js";
import { Pager } from "./list.js";

const PAGE = 50;
const RANGES = [
  ["", "Any time"],
  ["1", "Last hour"],
  ["24", "Last 24 hours"],
  ["168", "Last 7 days"],
  ["custom", "From … until …"],
];
const OPERATIONS = [
  "fetch",
  "preview",
  "get_metadata",
  "statistics",
  "list_page",
  "glob_items",
  "check_connection",
  "discover",
  "register",
  "update",
  "unregister",
  "pause",
  "resume",
  "token_made",
  "token_revoked",
  "refused",
];
const OUTCOMES = ["ok", "cancelled", "AuthenticationError", "ConnectError", "PermissionDeniedError", "PolicyError"];
const CHIPS = { ok: "ready", cancelled: "", stopped: "" };
const SHOWN = new Set(["time", "user", "operation", "outcome", "identifier", "duration"]); // in columns

export async function auditPage({ query, signal, move }) {
  const list = h("div", { "aria-live": "polite" });
  // The form stays when the list changes, with what is typed in it meanwhile, and the focus.
  const filter = new Filter(query, (values) => {
    move(["audit"], values);
    pager.restart();
  });
  const load = async () => {
    const isLatest = pager.ask();
    try {
      const given = { ...filter.parameters(), limit: PAGE, cursor: pager.cursor };
      const page = await api("GET", "audit", { query: given, signal });
      if (isLatest()) list.replaceChildren(...content(page));
    } catch (error) {
      if (error.name === "AbortError" || !isLatest()) return;
      const none = error.status === 501 && emptyState("No audit trail", "This server has no store that keeps one.");
      list.replaceChildren(none || errorBox(error, load));
    }
  };
  const content = (page) => {
    const controls = pager.controls(page.next_cursor);
    if (page.items.length) return [entriesTable(page.items), controls].filter(Boolean);
    if (page.next_cursor) {
      const on = button("Search on", () => (pager.cursors.push(page.next_cursor), load()), { class: "primary" });
      return [emptyState("Nothing so far", "None of the newer entries matches; older ones are not looked at yet.", on)];
    }
    if (pager.cursor !== null) return [emptyState("No more entries", "These were all."), controls];
    if (!filter.isSet) return [emptyState("No entries", "Operations on sources and tokens are listed here.")];
    const clear = link(["audit"], "Clear the filter", {}, { class: "button" });
    return [emptyState("Nothing matches", "No entry has these values.", clear)];
  };
  const pager = new Pager("Pages of the audit trail", load, ["Newer", "Older"]);
  await load();
  return [
    h(
      "div",
      { class: "row spread" },
      h("h1", { tabindex: "-1" }, "Audit"),
      button("Refresh", () => pager.restart()),
    ),
    h("p", { class: "dim" }, "Who did what with which source, the newest first, and who was refused."),
    filter.node,
    list,
  ];
}

/**
 * The values that are asked for, which are those of the address.
 *
 * @param changed Is called with the values when others are asked for.
 */
class Filter {
  constructor(query, changed) {
    this.query = query;
    this.changed = changed;
    this.began = Date.now(); // the same for all pages, as their cursors are bound to the times
    const text = (name, values = []) => {
      const known = values.length > 0 && h("datalist", { id: newId("known") });
      if (known) known.append(...values.map((value) => h("option", { value })));
      const control = h("input", {
        type: "text",
        value: query.get(name) ?? "",
        autocomplete: "off",
        spellcheck: "false",
        list: known && known.id,
      });
      return { control, known };
    };
    const fields = {
      user: text("user"),
      source: text("source"),
      operation: text("operation", OPERATIONS),
      outcome: text("outcome", OUTCOMES),
    };
    this.controls = Object.entries(fields).map(([name, { control }]) => [name, control]);
    this.range = h(
      "select",
      { onchange: () => (this.showTimes(), this.range.value === "custom" ? this.since.focus() : this.apply()) },
      RANGES.map(([hours, label]) => h("option", { value: hours, selected: hours === this.givenRange }, label)),
    );
    const time = (name) => h("input", { type: "datetime-local", step: 1, value: query.get(name) ?? "" });
    [this.since, this.until] = [time("since"), time("until")];
    const named = ([name, { control, known }]) => [
      labelled(name.charAt(0).toUpperCase() + name.slice(1), control),
      known,
    ];
    this.clear = link(["audit"], "Clear", {}, { class: "button quiet", hidden: !this.isSet });
    this.times = h("div", { class: "filters" }, labelled("From", this.since), labelled("Until", this.until));
    this.node = h(
      "form",
      {
        class: "filter",
        role: "search",
        onsubmit: (event) => {
          event.preventDefault();
          this.apply();
        },
      },
      h(
        "div",
        { class: "filters" },
        labelled("Time", this.range),
        Object.entries(fields).map(named),
        h(
          "div",
          { class: "row" },
          h("button", { type: "submit" }, "Filter"),
          this.clear,
        ),
      ),
      this.times,
    );
    this.showTimes();
  }

  get givenRange() {
    const custom = this.query.has("since") || this.query.has("until");
    return custom ? "custom" : (this.query.get("hours") ?? "");
  }

  get isSet() {
    return [...this.query.keys()].length > 0;
  }

  showTimes() {
    this.times.hidden = this.range.value !== "custom";
  }

  apply() {
    const times =
      this.range.value === "custom"
        ? { since: this.since.value, until: this.until.value }
        : { hours: this.range.value };
    const typed = Object.fromEntries(this.controls.map(([name, control]) => [name, control.value.trim()]));
    const values = { ...times, ...typed };
    this.query = new URLSearchParams(Object.entries(values).filter(([, value]) => value));
    this.began = Date.now();
    this.clear.hidden = !this.isSet;
    this.changed(values);
  }

  /** Return the parameters of the request. */
  parameters() {
    const values = Object.fromEntries(this.controls.map(([name]) => [name, this.query.get(name)]));
    const hours = Number(this.query.get("hours"));
    const moment = (name) => {
      const time = new Date(this.query.get(name) ?? "");
      return Number.isNaN(time.getTime()) ? null : time.toISOString();
    };
    const since = hours > 0 ? new Date(this.began - hours * 3_600_000).toISOString() : moment("since");
    return { ...values, since, until: moment("until") };
  }
}

function entriesTable(entries) {
  const head = ["Time", "User", "Operation", "Source", "Item", "Outcome", "Took", ""];
  return region("Entries", table("Entries", head, entries.map(entryRows), { numbers: [6], wide: [3, 4, 6] }));
}

/** Return the row of an entry, and that of its details, which a button shows. */
function entryRows(entry) {
  const more = Object.entries(entry).filter(([name]) => !SHOWN.has(name));
  const id = newId("entry");
  const details = h("tr", { id, hidden: true, class: "more" }, h("td", { colspan: 8 }, detailsList(entry, more)));
  const toggle = button(
    "Details",
    () => {
      details.hidden = !details.hidden;
      toggle.setAttribute("aria-expanded", String(!details.hidden));
    },
    { class: "quiet small", "aria-expanded": "false", "aria-controls": id },
  );
  const filtered = (name) => entry[name] && link(["audit"], entry[name], { [name]: entry[name] });
  const outcome =
    entry.outcome && chip(entry.outcome, Object.hasOwn(CHIPS, entry.outcome) ? CHIPS[entry.outcome] : "unusable");
  const row = h(
    "tr",
    {},
    h("td", {}, formatTime(entry.time, { seconds: true })),
    h("td", {}, filtered("user") ?? h("span", { class: "dim" }, "nobody known")),
    h("td", {}, filtered("operation")),
    h("td", { class: "wide-only" }, filtered("source")),
    h("td", { class: "wide-only" }, h("span", { class: "clip code", title: entry.identifier }, entry.identifier)),
    h("td", {}, outcome),
    h("td", { class: "number wide-only nowrap" }, entry.duration === undefined ? "" : formatSeconds(entry.duration)),
    h("td", { class: "actions-cell" }, toggle),
  );
  return [row, details];
}

function detailsList(entry, more) {
  const shown = ([name, value]) => {
    const text = name === "bytes" ? formatSize(value) : typeof value === "number" ? formatNumber(value) : String(value);
    return [h("dt", {}, name.replaceAll("_", " ")), h("dd", {}, text)];
  };
  return h("dl", {}, entry.identifier ? shown(["item", entry.identifier]) : null, more.map(shown));
}
