// Parts of the form of a source beside its options: limits and metadata.

import { button, formatNumber, formatSize, h, newId, plural } from "./dom.js";
import { Input, difference, escapePointer, same, textInput } from "./fields.js";

const UNITS = { "": 1, b: 1, kb: 1e3, mb: 1e6, gb: 1e9, tb: 1e12 };
const DEFAULTS = { max_bytes: 100_000_000, max_rows: 10_000, timeout: 300 };

/** A part that is folded up while nothing of it is set. */
export class Setting {
  constructor(title, ...content) {
    this.state = h("span", { class: "dim" });
    this.node = h("details", {}, h("summary", {}, title, " ", this.state), content);
  }

  /** Say in the headline what is set. */
  showState(text, open = false) {
    this.state.textContent = text;
    if (open) this.node.open = true;
  }
}

/** The limits of each fetch: those of the server, or others. */
export class LimitsSetting extends Setting {
  constructor(source) {
    super("Limits");
    this.key = "limits";
    this.stored = source?.limits ?? null;
    const shown = this.stored ?? DEFAULTS;
    this.own = h("input", { type: "checkbox", id: newId("own"), checked: this.stored !== null });
    const field = (name, label, text, help) => new Input(`#/limits/${name}`, label, textInput(text), help);
    this.inputs = {
      max_bytes: field("max_bytes", "Size of a file", sizeText(shown.max_bytes), "Such as 250 MB. Empty: no limit."),
      max_rows: field("max_rows", "Rows of a result", shown.max_rows, "Further rows are left out. Empty: no limit."),
      timeout: field(
        "timeout",
        "Seconds of a fetch",
        shown.timeout,
        "With the wait for a connection. Empty: no limit.",
      ),
    };
    this.places = Object.values(this.inputs);
    this.box = h(
      "div",
      { class: "columns" },
      this.places.map((place) => place.node),
    );
    this.node.append(
      h("p", { class: "row" }, this.own, h("label", { for: this.own.id }, "Limits of its own")),
      this.box,
    );
    this.own.addEventListener("change", () => this.toggle());
    this.node.addEventListener("input", () => this.toggle());
    this.toggle();
  }

  toggle() {
    this.box.hidden = !this.own.checked;
    const { max_bytes: bytes, max_rows: rows, timeout } = this.value() ?? {};
    const parts = [
      typeof bytes === "number" && formatSize(bytes),
      typeof rows === "number" && plural(rows, "row"),
      typeof timeout === "number" && `${formatNumber(timeout)} s`,
    ].filter(Boolean);
    this.showState(this.own.checked ? parts.join(", ") || "none" : "those of the server");
  }

  value() {
    if (!this.own.checked) return null;
    const number = ({ control }, read) => (control.value.trim() === "" ? null : read(control.value.trim()));
    return {
      max_bytes: number(this.inputs.max_bytes, parseSize),
      max_rows: number(this.inputs.max_rows, parseNumber),
      timeout: number(this.inputs.timeout, parseNumber),
    };
  }

  patch() {
    const value = this.value();
    return same(value, this.stored) ? undefined : value;
  }
}

/** Return a number, or the text if it is none, which the server refuses at its field. */
function parseNumber(text) {
  const number = Number(text.replaceAll(/(?<=\d),(?=\d{3})/g, ""));
  return Number.isFinite(number) ? number : text;
}

function parseSize(text) {
  const match = /^([\d.,]+)\s*([kmgt]?b?)$/i.exec(text);
  const unit = match && (UNITS[match[2].toLowerCase()] ?? UNITS[`${match[2].toLowerCase()}b`]);
  const amount = match && parseNumber(match[1]);
  return typeof amount === "number" ? Math.round(amount * unit) : text;
}

/** Return a number of bytes as it is typed: with a unit if nothing is lost by it. */
function sizeText(bytes) {
  if (bytes === null) return "";
  const [unit, factor] = Object.entries(UNITS).findLast(([, size]) => bytes >= size && bytes % size === 0) ?? ["", 1];
  return unit.length === 2 ? `${bytes / factor} ${unit === "kb" ? "kB" : unit.toUpperCase()}` : String(bytes);
}

/** Return entries as an object; throws if two have the same name. */
export function uniquely(key, entries) {
  const value = Object.fromEntries(entries);
  const twice = entries.map(([name]) => name).find((name, number, names) => names.indexOf(name) !== number);
  if (twice === undefined) return value;
  const error = new Error(`the name ${JSON.stringify(twice)} is given twice; take another one`);
  error.errors = [{ pointer: `#/${key}/${escapePointer(twice)}`, detail: "has the name of another one" }];
  throw error;
}

/** Notes of any names; values that are no text are shown, and kept, as JSON. */
export class MetadataSetting extends Setting {
  constructor(source) {
    super("Metadata");
    this.key = "metadata";
    this.stored = source?.metadata ?? {};
    this.list = h("div", {});
    this.rows = [];
    for (const [name, value] of Object.entries(this.stored)) this.add(name, value);
    this.node.append(
      h("p", { class: "help" }, "Notes, such as an owner or a ticket. They are shown in clear: no place for secrets."),
      this.list,
      button("Add a note", () => this.add("", "").name.focus()),
    );
    this.node.addEventListener("input", () => this.toggle());
    this.toggle();
  }

  add(name, value) {
    const row = new MetadataRow(name, value, this.rows.length + 1, () => {
      this.rows.splice(this.rows.indexOf(row), 1);
      row.node.remove();
      this.toggle();
    });
    this.rows.push(row);
    this.list.append(row.node);
    this.toggle();
    return row;
  }

  toggle() {
    this.showState(this.rows.length ? plural(this.rows.length, "note") : "none");
  }

  get places() {
    return this.rows;
  }

  value() {
    return uniquely(
      "metadata",
      this.rows.filter((row) => row.name.value.trim()).map((row) => row.entry()),
    );
  }

  patch() {
    const value = this.value();
    return same(value, this.stored) ? undefined : difference(this.stored, value);
  }
}

class MetadataRow {
  constructor(name, value, number, remove) {
    this.name = textInput(name, { placeholder: "name", "aria-label": `Name of note ${number}` });
    this.isJson = typeof value !== "string";
    this.control = textInput(this.isJson ? JSON.stringify(value) : value, {
      placeholder: "value",
      "aria-label": `Value of note ${number}`,
      class: this.isJson ? "code grow" : "grow",
    });
    this.stored = value;
    this.initial = this.control.value; // without the line ends that the value may have
    this.error = h("p", { class: "field-error", id: newId("error") });
    this.control.setAttribute("aria-describedby", this.error.id);
    const drop = button("Remove", remove, { class: "quiet", "aria-label": `Remove note ${number}` });
    this.node = h("div", { class: "note-row" }, h("div", { class: "row" }, this.name, this.control, drop), this.error);
  }

  get label() {
    return this.name.value || "Metadata";
  }

  get pointers() {
    return [`#/metadata/${escapePointer(this.name.value.trim())}`];
  }

  showError(text) {
    this.error.textContent = text;
    this.control.toggleAttribute("aria-invalid", Boolean(text));
    if (text) this.control.setAttribute("aria-invalid", "true");
  }

  entry() {
    const text = this.control.value;
    let value = text === this.initial ? this.stored : text;
    try {
      if (this.isJson && text !== this.initial) value = JSON.parse(text);
    } catch {
      // becomes text
    }
    return [this.name.value.trim(), value];
  }
}
