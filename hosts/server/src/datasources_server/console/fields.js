// Fields of forms: of options, as their descriptions say, and plain ones.

import { button, chip, formatNumber, h, newId, sentence } from "./dom.js";

/** Return a name as a JSON pointer has it (RFC 6901). */
export const escapePointer = (name) => name.replaceAll("~", "~0").replaceAll("/", "~1");

/** A labelled control with a place for what is wrong with it. */
export class Input {
  constructor(pointer, label, control, help) {
    Object.assign(this, { pointer, label, control });
    control.id ||= newId("field");
    this.error = h("p", { class: "field-error", id: `${control.id}-error` });
    const note = help && h("p", { class: "help", id: `${control.id}-help` }, help);
    control.setAttribute("aria-describedby", `${note ? `${note.id} ` : ""}${this.error.id}`);
    this.node = h("div", { class: "field" }, h("label", { for: control.id }, label), control, note, this.error);
  }

  /** The JSON pointers of what the control sets, in the body of a request. */
  get pointers() {
    return [typeof this.pointer === "function" ? this.pointer() : this.pointer];
  }

  showError(text) {
    showError(this, text);
  }
}

function showError({ control, error }, text) {
  error.textContent = text;
  if (text) control.setAttribute("aria-invalid", "true");
  else control.removeAttribute("aria-invalid");
}

/** Return an input for text. */
export function textInput(value, properties = {}) {
  return h("input", { type: "text", autocomplete: "off", spellcheck: "false", value: value ?? "", ...properties });
}

/** Return the merge patch (RFC 7396) that makes one value of another. */
export function difference(before, after) {
  if (!isTable(before) || !isTable(after)) return after;
  const patch = Object.create(null); // so that `__proto__` is a name like others
  for (const name of Object.keys(before)) if (!Object.hasOwn(after, name)) patch[name] = null;
  for (const [name, value] of Object.entries(after)) {
    if (!same(before[name], value)) patch[name] = difference(before[name], value);
  }
  return patch;
}

export const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);
const isTable = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

/** The field of one option, made of its description; `source` is the stored one, or null. */
export class Field {
  constructor(spec, source) {
    this.spec = spec;
    this.names = [spec.name, ...spec.aliases];
    this.label = spec.label;
    this.pointers = this.names.map((name) => `#/options/${escapePointer(name)}`);
    this.key = this.names.find((name) => source && name in source.options) ?? spec.name;
    this.secret = source?.secrets[spec.name];
    this.stored = spec.secret ? undefined : source?.options[this.key];
    this.removed = false;
    this.control = this.makeControl();
    this.control.id = newId("option");
    this.initial = this.text();
    this.error = h("p", { class: "field-error", id: `${this.control.id}-error` });
    this.optional = h("span", { class: "dim small" });
    this.choices = h("div", { class: "row small" });
    const help = h("p", { class: "help", id: `${this.control.id}-help` }, this.help());
    this.control.setAttribute("aria-describedby", `${help.id} ${this.error.id}`);
    const label = h("label", { for: this.control.id }, spec.label, this.optional);
    this.holder = h("div", {});
    const first = spec.kind === "boolean" ? h("div", { class: "row" }, this.control, label) : [label, this.holder];
    if (spec.kind !== "boolean") this.holder.append(this.control);
    this.node = h("div", { class: "field" }, first, help, this.error, this.choices);
    if (this.secret?.set) this.showSecret();
  }

  /** True if the stored source has a value. */
  get isSet() {
    return this.spec.secret ? Boolean(this.secret?.set) : this.stored !== undefined && this.stored !== null;
  }

  help() {
    const { help, secret, bounds, kind, deprecated } = this.spec;
    const parts = [help && sentence(help)];
    const [low, high] = [bounds.ge ?? bounds.gt, bounds.le ?? bounds.lt];
    if (low !== undefined && high !== undefined) parts.push(`From ${formatNumber(low)} to ${formatNumber(high)}.`);
    if (kind === "list") parts.push("One on each line.");
    if (secret) parts.push("Written, and never shown again; or a reference such as ${env:NAME}.");
    if (deprecated !== null) parts.push(`Deprecated. ${deprecated}`);
    return parts.filter(Boolean).join(" ");
  }

  makeControl() {
    const { kind, widget, secret, choices, examples, default: standard, name } = this.spec;
    const value = this.stored;
    if (kind === "boolean") return h("input", { type: "checkbox", checked: value ?? standard ?? false });
    if (kind === "choice") {
      const none = h("option", { value: "" }, standard === null ? "not given" : `${standard}, the default`);
      const known = [...new Set([...choices, ...(typeof value === "string" ? [value] : [])])];
      return h(
        "select",
        { value: undefined },
        none,
        known.map((choice) => h("option", { value: choice, selected: choice === value }, choice)),
      );
    }
    const placeholder = secret ? "" : valueText(kind, standard ?? examples[0]);
    if (kind === "list" || kind === "table" || widget === "textarea") {
      return h("textarea", {
        rows: kind === "list" ? 2 : 4,
        placeholder,
        spellcheck: "false",
        value: valueText(kind, value),
      });
    }
    const common = { placeholder, value: valueText(kind, value), spellcheck: "false", name };
    if (secret || widget === "password")
      return h("input", { type: "password", autocomplete: "new-password", ...common });
    return h("input", {
      type: "text",
      autocomplete: "off",
      inputmode: widget === "number" ? "decimal" : null,
      ...common,
    });
  }

  require(required) {
    this.required = required;
    this.optional.textContent = required ? "" : " optional";
    if (this.spec.kind !== "boolean") this.control.setAttribute("aria-required", String(required));
  }

  /** True if a value has to be given and is not. */
  get isMissing() {
    if (!this.required || this.node.hidden || this.spec.kind === "boolean") return false;
    const kept = this.secret?.set && !this.removed && !this.holder.contains(this.control);
    return !kept && this.value() === undefined;
  }

  text() {
    return this.spec.kind === "boolean" ? String(this.control.checked) : this.control.value;
  }

  /** Return the value that is typed, undefined for none. */
  value() {
    const { kind, default: standard, secret } = this.spec;
    if (kind === "boolean")
      return this.control.checked === (standard ?? false) && !this.isSet ? undefined : this.control.checked;
    const text = secret ? this.control.value : this.control.value.trim();
    if (text === "") return undefined;
    if (text.includes("${") && kind !== "table" && kind !== "list") return text;
    if (kind === "integer" || kind === "number") return Number.isFinite(Number(text)) ? Number(text) : text;
    if (kind === "list")
      return text
        .split("\n")
        .map((line) => line.trim())
        .filter(Boolean);
    if (kind !== "table") return text;
    try {
      return JSON.parse(text);
    } catch {
      return text; // refused by the server, at this field
    }
  }

  /** Return what a merge patch has of the option; undefined if it stays. */
  change() {
    if (this.spec.secret) {
      if (this.removed) return null;
      return this.holder.contains(this.control) && this.control.value !== "" ? this.value() : undefined;
    }
    if (this.text() === this.initial) return undefined;
    return this.value() ?? null;
  }

  showError(text) {
    showError(this, text);
  }

  showSecret() {
    this.removed = false;
    this.control.value = "";
    const label = this.spec.label;
    const replace = button("Replace", () => (this.replace(), this.control.focus()), {
      "aria-label": `Replace ${label}`,
    });
    const remove = button("Remove", () => this.remove(), { "aria-label": `Remove ${label}`, class: "quiet" });
    this.holder.replaceChildren(
      h(
        "div",
        { class: "row secret" },
        chip("set", "ready"),
        h(
          "span",
          { class: "dim small", title: this.secret.fingerprint },
          `fingerprint ${this.secret.fingerprint.slice(0, 8)}`,
        ),
        replace,
        remove,
      ),
    );
  }

  /** Let a secret that is set be typed anew. */
  replace() {
    if (!this.secret?.set || this.holder.contains(this.control)) return;
    const keep = button("Keep the stored one", () => this.showSecret(), { class: "quiet" });
    this.removed = false;
    this.holder.replaceChildren(h("div", { class: "row" }, this.control, keep));
  }

  remove() {
    this.removed = true;
    const keep = button("Keep it", () => this.showSecret());
    this.holder.replaceChildren(h("div", { class: "row" }, h("span", {}, "Removed when you save."), keep));
  }

  offer(values) {
    const take = (value) => {
      if (this.spec.kind !== "list") this.control.value = value;
      else this.control.value = [...new Set([...this.control.value.split("\n").filter(Boolean), value])].join("\n");
      this.control.focus();
    };
    this.choices.replaceChildren(
      ...values.slice(0, 50).map((value) => button(value, () => take(value), { class: "choice" })),
    );
    return values.length;
  }
}

function valueText(kind, value) {
  if (value === undefined || value === null) return "";
  if (kind === "list" && Array.isArray(value)) return value.join("\n");
  return typeof value === "object" ? JSON.stringify(value, null, 2) : String(value);
}
