// Forms of sources, made from the description of the options of their type.

import { api, at } from "./api.js";
import {
  busy,
  button,
  errorBox,
  formatNumber,
  h,
  labelled,
  link,
  newId,
  openDialog,
  say,
  sentence,
  typeName,
} from "./dom.js";
import { testResult } from "./sources.js";

export async function typesPage({ signal }) {
  const types = (await api("GET", "types", { signal })).items;
  const card = (entry) =>
    h(
      "li",
      {},
      entry.state === "ready"
        ? link(["add", entry.type], typeName(entry.type), {}, { class: "name" })
        : h("span", { class: "name" }, typeName(entry.type)),
      h("span", { class: "dim small" }, ` ${entry.distribution ?? ""} ${entry.version ?? ""}`),
      entry.reason && h("p", { class: "small" }, sentence(entry.reason)),
    );
  return [
    crumbs(),
    h("h1", { tabindex: "-1" }, "Add a source"),
    h("p", {}, "What do you want to connect?"),
    h("ul", { class: "cards" }, types.map(card)),
  ];
}

const crumbs = (...more) => h("nav", { "aria-label": "Breadcrumb", class: "crumbs" }, link([], "Sources"), more);

export async function newPage({ id: type, signal, go }) {
  const description = await api("GET", at("types", type), { signal });
  const form = new SourceForm(description, null);
  const save = async (test) => {
    const { id, name, options } = form.read();
    if (!id) return form.show({ message: "give an id", errors: [{ pointer: "source_id", detail: "must be given" }] });
    const body = { type, options, ...(name && { name }) };
    await api("PUT", at("sources", id), { body, query: { test }, headers: { "If-None-Match": "*" } });
    say(`Added ${id}.`);
    return go(["source", id]);
  };
  const test = () => api("POST", "test", { body: { type, options: form.read().options } });
  const discover = () => api("POST", "discover", { body: { type, options: form.read().options } });
  return [
    crumbs(link(["add"], "Add")),
    h("h1", { tabindex: "-1" }, `Add ${typeName(type)}`),
    form.build({ save, test, discover }),
  ];
}

export async function editPage({ id, signal, go, reload }) {
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
      const choice = await conflictDialog(source, stored, patch, form.fields);
      if (choice === "stored") return reload();
      if (choice !== "mine") return undefined;
      version = stored.version;
      return save(test);
    }
    say(`Saved ${id}.`);
    return go(["source", id]);
  };
  const test = () => api("POST", `${at("sources", id)}/test`, { body: form.patch() });
  return [
    crumbs(link(["source", id], source.name)),
    h("h1", { tabindex: "-1" }, `Edit ${source.name}`),
    form.build({ save, test }),
  ];
}

/** Ask what to do about a source that somebody else has changed; returns `mine`, `stored` or null. */
async function conflictDialog(base, stored, patch, fields) {
  const text = (value) =>
    value === undefined || value === null ? "–" : typeof value === "string" ? value : JSON.stringify(value);
  const rows = [];
  const compare = (label, before, now, mine, touched) => {
    if (!touched && text(before) === text(now)) return;
    const cells = [text(now), touched ? mine : "not changed by you"];
    rows.push(
      h(
        "tr",
        {},
        h("th", { scope: "row" }, label),
        cells.map((cell) => h("td", {}, cell)),
      ),
    );
  };
  compare("Name", base.name, stored.name, text(patch.name), "name" in patch);
  for (const field of fields) {
    const key = field.key;
    const touched = key in (patch.options ?? {});
    if (field.spec.secret) {
      const [before, now] = [base, stored].map((source) => source.secrets[field.spec.name]?.fingerprint);
      const state =
        now === undefined || now === null ? "not set" : now === before ? "set" : "replaced by somebody else";
      compare(
        field.spec.label,
        before,
        before === now ? before : state,
        patch.options?.[key] === null ? "removed" : "replaced",
        touched,
      );
      if (touched) rows.at(-1).children[1].textContent = state;
    } else compare(field.spec.label, base.options[key], stored.options[key], text(patch.options?.[key]), touched);
  }
  const head = ["Setting", "Stored now", "Yours"].map((label) => h("th", { scope: "col" }, label));
  const content = [
    h("p", {}, `Somebody else has changed it: it has version ${stored.version}, and you began with ${base.version}.`),
    h(
      "div",
      { class: "scroll", tabindex: "0", role: "region", "aria-label": "Both versions" },
      h("table", { class: "list" }, h("thead", {}, h("tr", {}, head)), h("tbody", {}, rows)),
    ),
    h("p", { class: "help" }, "If you save yours, only what you have changed is written; other changes stay."),
  ];
  const actions = [
    { label: "Back to the form" },
    { label: "Take the stored version", value: "stored" },
    { label: "Save mine", value: "mine", kind: "primary" },
  ];
  return openDialog("Two versions of this source", content, actions, { wide: true });
}

class SourceForm {
  constructor(description, source) {
    this.source = source;
    this.description = description.form ?? { description: "", fields: [], groups: [], alternatives: [] };
    this.fields = this.description.fields.map((spec) => new Field(spec, source));
    this.alternative = this.firstAlternative();
    this.name = h("input", { type: "text", value: source?.name ?? "", autocomplete: "off", maxlength: 200 });
    this.id = h("input", {
      type: "text",
      value: source?.id ?? "",
      autocomplete: "off",
      spellcheck: "false",
      maxlength: 128,
      disabled: source !== null,
    });
    this.idError = h("p", { class: "field-error", id: newId("error") });
    this.banner = h("div", { class: "banner" });
  }

  /** Return the form; `save`, `test` and `discover` are coroutine functions. */
  build({ save, test, discover }) {
    this.save = save;
    let typed = this.source !== null;
    this.id.addEventListener("input", () => (typed = this.id.value !== ""));
    this.name.addEventListener("input", () => {
      if (!typed)
        this.id.value = this.name.value
          .toLowerCase()
          .replace(/[^a-z0-9]+/g, "-")
          .replace(/^-+|-+$/g, "");
    });
    const submit = h("button", { type: "submit", class: "primary" }, this.source ? "Save" : "Add source");
    const check = h("input", { type: "checkbox", checked: true, id: newId("check") });
    const testing = button("Test", () => this.run(testing, async () => this.showTest(await test())));
    const finding = discover && this.fields.some((field) => field.spec.discovered);
    const find =
      finding &&
      button("Find choices", () => this.run(find, async () => this.offer((await discover()).choices)), {
        title: "Connect, and list what the options could be",
      });
    const advanced = this.fields.filter((field) => field.spec.advanced);
    this.advanced = h(
      "details",
      { open: advanced.some((field) => field.stored !== undefined) },
      h("summary", {}, "Advanced options"),
      this.groups(true),
    );
    const form = h(
      "form",
      {
        class: "source-form",
        novalidate: true,
        onsubmit: (event) => {
          event.preventDefault();
          this.run(submit, () => save(check.checked));
        },
      },
      this.description.description && h("p", { class: "dim" }, this.description.description.split("\n\n")[0]),
      this.banner,
      h(
        "fieldset",
        {},
        h("legend", { class: "hidden" }, "Name"),
        labelled("Name", this.name, "For people; the id if it is empty."),
        h(
          "div",
          {},
          labelled("Id", this.id, this.source ? "Cannot be changed." : "For programs: letters, digits, dots, hyphens."),
          this.idError,
        ),
      ),
      this.alternatives(),
      this.groups(false),
      advanced.length > 0 && this.advanced,
      h(
        "div",
        { class: "row actions" },
        submit,
        testing,
        find,
        h("span", { class: "row" }, check, h("label", { for: check.id }, "Test before saving")),
      ),
    );
    this.toggle();
    return form;
  }

  async run(control, action) {
    this.clear();
    await busy(control, async () => {
      try {
        await action();
      } catch (error) {
        if (error.name === "AbortError") throw error;
        this.show(error);
      }
    });
  }

  groups(advanced) {
    return this.description.groups.map((group) => {
      const members = group.fields.map((name) => this.field(name)).filter((field) => field.spec.advanced === advanced);
      if (!members.length) return null;
      const legend = h("legend", { class: group.name ? null : "hidden" }, group.name ?? "Options");
      return h(
        "fieldset",
        {},
        legend,
        members.map((field) => field.node),
      );
    });
  }

  field(name) {
    return this.fields.find((field) => field.spec.name === name);
  }

  /** Return the alternative of the source; of a new one, that which begins the form. */
  firstAlternative() {
    const { alternatives } = this.description;
    if (!alternatives.length) return null;
    const given = alternatives.find((names) => names.every((name) => this.field(name).isSet));
    if (given) return given;
    const first = this.fields.find((field) => alternatives.flat().includes(field.spec.name));
    return alternatives.find((names) => names.includes(first.spec.name));
  }

  alternatives() {
    const { alternatives } = this.description;
    if (alternatives.length < 2) return null;
    const name = newId("alternative");
    const count = (option) => alternatives.filter((names) => names.includes(option)).length;
    const choices = alternatives.map((names) => {
      const own = names.filter((option) => count(option) === 1);
      const label = (own.length ? own : names).map((option) => this.field(option).spec.label).join(", ");
      const select = () => {
        this.alternative = names;
        this.toggle();
      };
      const radio = h("input", {
        type: "radio",
        name,
        id: newId("choice"),
        checked: names === this.alternative,
        onchange: select,
      });
      return h("div", { class: "row" }, radio, h("label", { for: radio.id }, label));
    });
    return h("fieldset", { class: "choices" }, h("legend", {}, "Connect with"), choices);
  }

  /** Show the fields of the chosen alternative and those of none. */
  toggle() {
    const { alternatives, alternatives_overlap: overlap } = this.description;
    for (const field of this.fields) {
      const name = field.spec.name;
      const required = this.alternative?.includes(name) ?? false;
      const free = !alternatives.flat().includes(name) || (overlap && field.isSet);
      field.node.hidden = !(free || required);
      field.require(field.spec.required || required);
    }
  }

  /** Return id, name and all options of a new source. */
  read() {
    const options = {};
    for (const field of this.fields) {
      const value = field.node.hidden ? undefined : field.value();
      if (value !== undefined && value !== null) options[field.spec.name] = value;
    }
    return { id: this.id.value.trim(), name: this.name.value.trim(), options };
  }

  /** Return the merge patch of what has been changed. */
  patch() {
    const options = {};
    for (const field of this.fields) {
      const value = field.node.hidden ? (field.isSet ? null : undefined) : field.change();
      if (value !== undefined) options[field.key] = value;
    }
    const name = this.name.value.trim();
    return { ...(name && name !== this.source.name && { name }), ...(Object.keys(options).length && { options }) };
  }

  clear() {
    this.banner.replaceChildren();
    this.idError.textContent = "";
    this.id.removeAttribute("aria-invalid");
    for (const field of this.fields) field.showError("");
  }

  showTest(check) {
    if (check.ok || !check.error) this.banner.replaceChildren(testResult(check));
    else this.show({ ...check.error, tested: true });
    this.banner.scrollIntoView({ block: "nearest" });
  }

  /** Show an error at the fields that it is about, and above all of them. */
  show(error) {
    const located = this.locate(error);
    for (const { field, text } of located) field.showError(sentence(text));
    const fields = located.map(({ field }) => field);
    if (fields.some((field) => field.spec.advanced)) this.advanced.open = true;
    const idText =
      (error.errors ?? []).find(({ pointer }) => pointer === "source_id")?.detail ??
      (error.slug === "source-exists" ? error.message : "");
    if (idText) {
      this.idError.textContent = sentence(idText);
      this.id.setAttribute("aria-invalid", "true");
    }
    const failed = !error.tested && [502, 503, 504].includes(error.status);
    const anyway = failed && button("Save without a test", () => this.run(anyway, () => this.save(false)));
    this.banner.replaceChildren(errorBox(error), anyway || "");
    (idText ? this.id : (fields[0]?.control ?? this.banner)).focus();
    this.banner.scrollIntoView({ block: "nearest" });
  }

  locate(error) {
    const located = [];
    const add = (field, text) => field && !field.node.hidden && located.push({ field, text });
    for (const { pointer, detail } of error.errors ?? []) {
      const name = pointer.split("/")[2]?.replaceAll("~1", "/").replaceAll("~0", "~");
      const field = this.fields.find((candidate) => candidate.names.includes(name));
      if (error.slug === "secret-required") field?.replace();
      add(field, detail);
    }
    if (located.length) return located;
    // The sentence of an invalid option names it: option 'port': must be …; option 'x': …
    for (const [, name, text] of error.message.matchAll(/option '([^']+)':? (.*?)(?=; option '|$)/g)) {
      add(
        this.fields.find((field) => field.names.includes(name)),
        text,
      );
    }
    if (!located.length && error.setting) add(this.refused(error), error.message);
    if (!located.length && error.slug === "source-login-refused") {
      const login = this.fields.filter((field) => field.spec.secret && !field.node.hidden);
      for (const field of login) field.replace();
      add(login.at(-1), error.message);
    }
    return located;
  }

  /** Return the field whose value a policy refuses: the refusal repeats the value, or a part. */
  refused({ message }) {
    const reference = /refer to '([^']+)'/.exec(message)?.[1];
    const holds = (text) => (reference ? text.includes(`\${${reference}}`) : text.length > 2 && message.includes(text));
    const visible = this.fields.filter((field) => !field.node.hidden);
    return (
      visible.find((field) => holds(String(field.value() ?? ""))) ??
      visible.find((field) => /host|url|path/.test(field.spec.name))
    );
  }

  offer(choices) {
    let offered = 0;
    for (const field of this.fields) offered += field.offer(choices[field.spec.name] ?? []);
    say(offered ? "The choices are below their fields." : "The source names no choices.");
  }
}

class Field {
  constructor(spec, source) {
    this.spec = spec;
    this.names = [spec.name, ...spec.aliases];
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
    const placeholder = secret ? "" : placeholderText(kind, standard ?? examples[0]);
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
    this.optional.textContent = required ? "" : " optional";
    if (this.spec.kind !== "boolean") this.control.setAttribute("aria-required", String(required));
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
    this.error.textContent = text;
    if (text) this.control.setAttribute("aria-invalid", "true");
    else this.control.removeAttribute("aria-invalid");
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
        h("span", { class: "chip ready" }, "set"),
        h("span", { class: "dim small" }, `fingerprint ${this.secret.fingerprint}`),
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

const placeholderText = (kind, value) => valueText(kind, value);
