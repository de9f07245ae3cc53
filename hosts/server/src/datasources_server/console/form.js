// Forms of sources, made from the description of the options of their type.

import { api, at } from "./api.js";
import { resolveConflict } from "./conflict.js";
import { busy, button, crumbs, errorBox, h, icon, link, newId, plural, say, sentence, typeName } from "./dom.js";
import { Field, Input, textInput } from "./fields.js";
import { LimitsSetting, MetadataSetting, QueriesSetting } from "./settings.js";
import { testResult } from "./sources.js";

export async function typesPage({ signal }) {
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

export async function newPage({ id: type, signal, go }) {
  const description = await api("GET", at("types", type), { signal });
  const form = new SourceForm(description, null);
  const save = async (test) => {
    const { id, body } = form.read();
    if (!id) throw missingId();
    await api("PUT", at("sources", id), {
      body: { type, ...body },
      query: { test },
      headers: { "If-None-Match": "*" },
    });
    say(`Added ${id}.`);
    return go(["source", id]);
  };
  const options = () => ({ type, options: form.read().body.options });
  const test = () => api("POST", "test", { body: options() });
  const discover = () => api("POST", "discover", { body: options() });
  return [
    crumbs(link([], "Sources"), link(["add"], "Add")),
    h("h1", { tabindex: "-1" }, `Add ${typeName(type)}`),
    form.build({ save, test, discover }),
  ];
}

function missingId() {
  const error = new Error("give the source an id");
  error.errors = [{ pointer: "source_id", detail: "must be given" }];
  return error;
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
      const choice = await resolveConflict(source, stored, patch, form.fields);
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
    crumbs(link([], "Sources"), link(["source", id], source.name || id)),
    h("h1", { tabindex: "-1" }, `Edit ${source.name || id}`),
    form.build({ save, test }),
  ];
}

class SourceForm {
  constructor(description, source) {
    this.source = source;
    this.description = description.form ?? { description: "", fields: [], groups: [], alternatives: [] };
    this.fields = this.description.fields.map((spec) => new Field(spec, source));
    this.alternative = this.firstAlternative();
    this.name = new Input(
      "#/name",
      "Name",
      textInput(source?.name, { maxlength: 200 }),
      "For people; the id if it is empty.",
    );
    this.id = new Input(
      "source_id",
      "Id",
      textInput(source?.id, { maxlength: 128, disabled: source !== null }),
      source ? "Cannot be changed." : "For programs: letters, digits, dots, hyphens.",
    );
    this.settings = [new LimitsSetting(source), new MetadataSetting(source)];
    if (description.abilities.includes("parameters")) this.settings.splice(1, 0, new QueriesSetting(source));
    this.banner = h("div", { class: "banner" });
  }

  /** Return the form; `save`, `test` and `discover` are coroutine functions. */
  build({ save, test, discover }) {
    this.save = save;
    let typed = this.source !== null;
    const [name, id] = [this.name.control, this.id.control];
    id.addEventListener("input", () => (typed = id.value !== ""));
    name.addEventListener("input", () => {
      if (!typed)
        id.value = name.value
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
      h("fieldset", {}, h("legend", { class: "hidden" }, "Name"), this.name.node, this.id.node),
      this.alternatives(),
      this.groups(false),
      advanced.length > 0 && this.advanced,
      this.settings.map((setting) => setting.node),
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

  /** Return the id of a new source, and the body of the request that makes it, without its type. */
  read() {
    const options = {};
    for (const field of this.fields) {
      const value = field.node.hidden ? undefined : field.value();
      if (value !== undefined && value !== null) options[field.spec.name] = value;
    }
    const body = { options };
    const name = this.name.control.value.trim();
    if (name) body.name = name;
    for (const setting of this.settings) {
      if (setting.patch() !== undefined) body[setting.key] = setting.value();
    }
    return { id: this.id.control.value.trim(), body };
  }

  /** Return the merge patch of what has been changed. */
  patch() {
    const options = {};
    for (const field of this.fields) {
      const value = field.node.hidden ? (field.isSet ? null : undefined) : field.change();
      if (value !== undefined) options[field.key] = value;
    }
    const patch = Object.keys(options).length ? { options } : {};
    const name = this.name.control.value.trim();
    if (name && name !== this.source.name) patch.name = name;
    for (const setting of this.settings) {
      const change = setting.patch();
      if (change !== undefined) patch[setting.key] = change;
    }
    return patch;
  }

  clear() {
    this.banner.replaceChildren();
    for (const place of this.places) place.showError("");
  }

  showTest(check) {
    if (check.ok || !check.error) this.banner.replaceChildren(testResult(check));
    else this.show({ ...check.error, tested: true });
    this.banner.scrollIntoView({ block: "nearest" });
  }

  /** The fields that an error may be about. */
  get places() {
    return [this.name, this.id, ...this.fields, ...this.settings.flatMap((setting) => setting.places)];
  }

  /** Show an error at the fields that it is about, and above all of them; focus the first one. */
  show(error) {
    const located = this.locate(error);
    for (const { place, text } of located) {
      place.showError(sentence(text));
      for (let box = place.node?.closest("details"); box; box = box.parentElement.closest("details")) box.open = true;
    }
    const failed = !error.tested && [502, 503, 504].includes(error.status);
    const anyway = failed && button("Save without a test", () => this.run(anyway, () => this.save(false)));
    const problems = error.errors?.length || Object.keys(error.fields ?? {}).length;
    const all = located.length > 0 && located.length >= problems;
    const summary = all
      ? h("div", { class: "box error", role: "alert" }, h("p", {}, summaryOf(located)))
      : errorBox(error);
    this.banner.replaceChildren(summary, anyway || "");
    this.banner.scrollIntoView({ block: "nearest" });
    if (located.length) located[0].place.control.focus();
  }

  /** Return the fields that an error is about, in the order of the page, and what is wrong there. */
  locate(error) {
    const problems =
      error.errors ??
      Object.entries(error.fields ?? {}).map(([name, detail]) => ({ pointer: `#/options${name}`, detail }));
    const located = [];
    const add = (place, text) => {
      if (place && !place.node?.hidden) located.push({ place, text });
    };
    for (const { pointer, detail } of problems) {
      const place = this.placeOf(pointer);
      if (error.slug === "secret-required") place?.replace?.();
      add(place, detail.replace(/^(unknown )?option '[^']*': /, ""));
    }
    if (!located.length) add(...this.guess(error));
    const order = ({ place: one }, { place: other }) =>
      one.control.compareDocumentPosition(other.control) & Node.DOCUMENT_POSITION_FOLLOWING ? -1 : 1;
    return located.sort(order);
  }

  /** Return the field that sets what a JSON pointer points to, or something that it lies in. */
  placeOf(pointer) {
    const within = (own) => pointer === own || pointer.startsWith(`${own}/`);
    const lengthOf = (place) => Math.max(0, ...place.pointers.filter(within).map((own) => own.length));
    const places = this.places.filter(lengthOf).sort((one, other) => lengthOf(other) - lengthOf(one));
    return places[0];
  }

  /** Return the field that an error without pointers is about, and what is wrong there. */
  guess(error) {
    const { message, slug, setting } = error;
    if (slug === "source-exists") return [this.id, message];
    if (setting) return [this.refused(error), message];
    if (slug === "source-login-refused") {
      const login = this.fields.filter((field) => field.spec.secret && !field.node.hidden);
      for (const field of login) field.replace();
      return [login.at(-1), message];
    }
    const query = /(?:query |: )'([^']*)'(?:: (.*)| is not the name of a query.*)/s.exec(message);
    return query ? [this.placeOf(`#/queries/${query[1]}`), query[2] ?? query[0].slice(2)] : [null, ""];
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

/** Return the sentence above a form whose fields show what is wrong. */
function summaryOf(located) {
  const names = [...new Set(located.map(({ place }) => place.label))];
  return `${plural(located.length, "field")} ${located.length === 1 ? "needs" : "need"} a change: ${names.join(", ")}.`;
}
