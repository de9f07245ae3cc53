// The form of a source, made from the description of the options of its type.

import { busy, button, errorBox, h, newId, plural, say, sentence } from "./dom.js";
import { Field, Input, textInput } from "./fields.js";
import { LimitsSetting, MetadataSetting } from "./settings.js";
import { testResult } from "./sources.js";
import { QueriesSetting } from "./stored.js";

export class SourceForm {
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

  /** Take what is in the form as what is stored. */
  keep() {
    this.kept = this.content();
  }

  /** True if something in the form would be lost. */
  get isChanged() {
    return this.content() !== this.kept;
  }

  content() {
    try {
      return JSON.stringify(this.source ? this.patch() : this.read());
    } catch (error) {
      return error.message; // two queries or notes of one name
    }
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
    const missing = () => this.fields.filter((field) => field.isMissing);
    const testing = button("Test", () => this.run(testing, async () => this.showTest(await test()), missing()));
    const finding = discover && this.fields.some((field) => field.spec.discovered);
    const find =
      finding &&
      button("Find choices", () => this.run(find, async () => this.offer((await discover()).choices), undiscovered()), {
        title: "Connect, and list what the options could be",
      });
    const undiscovered = () => missing().filter((field) => !field.spec.discovered);
    const all = () => (this.id.control.value.trim() ? missing() : [this.id, ...missing()]);
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
          this.run(submit, () => save(check.checked), all());
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
    this.keep();
    return form;
  }

  /** Run an action of a button, unless fields are missing for it; show its error at the fields. */
  async run(control, action, missing = []) {
    this.clear();
    if (missing.length) {
      const errors = missing.map(({ pointers: [pointer] }) => ({ pointer, detail: "must be given" }));
      return this.show({ message: "", errors });
    }
    return busy(control, async () => {
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
    // That of the first field of the form is the first choice.
    const place = (names) => Math.min(...names.map((option) => this.fields.indexOf(this.field(option))));
    const sorted = alternatives.toSorted((one, other) => place(one) - place(other));
    const choices = sorted.map((names) => {
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

  /** Show an error at the fields that it is about, and these above all of them; focus the first one. */
  show(error) {
    const [located, others] = this.locate(error);
    for (const { place } of located) {
      const texts = located.filter((problem) => problem.place === place).map(({ text }) => sentence(text));
      place.showError(texts.join(" "));
      for (let box = place.node?.closest("details"); box; box = box.parentElement.closest("details")) box.open = true;
    }
    const box = located.length
      ? h("div", { class: "box error", role: "alert" }, listOf(located.map(({ place }) => place)), others)
      : errorBox(error);
    if (!error.tested && [502, 503, 504].includes(error.status)) {
      const anyway = button("Save without a test", () => this.run(anyway, () => this.save(false)));
      box.append(h("p", {}, anyway));
    }
    this.banner.replaceChildren(box);
    this.banner.scrollIntoView({ block: "nearest" });
    if (!located.length) return;
    located[0].place.control.focus({ preventScroll: true });
    located[0].place.control.scrollIntoView({ block: "center" });
  }

  /**
   * Return the fields that an error is about, in the order of the page, with what is wrong there, and
   * paragraphs about what is wrong elsewhere.
   */
  locate(error) {
    const problems =
      error.errors ??
      Object.entries(error.fields ?? {}).map(([name, detail]) => ({ pointer: `#/${error.part}${name}`, detail }));
    const located = [];
    const others = [];
    const add = (place, text) => {
      const visible = place && !place.node?.hidden;
      if (visible) located.push({ place, text });
      return visible;
    };
    for (const { pointer, detail } of problems) {
      const place = this.placeOf(pointer);
      if (error.slug === "secret-required") place?.replace?.();
      if (!add(place, detail.replace(/^(unknown )?option '[^']*': /, "")))
        others.push(h("p", {}, sentence(`${pointer}: ${detail}`)));
    }
    if (!located.length && add(...this.guess(error))) others.length = 0; // its text is that of the whole error
    const order = ({ place: one }, { place: other }) =>
      one.control.compareDocumentPosition(other.control) & Node.DOCUMENT_POSITION_FOLLOWING ? -1 : 1;
    return [located.sort(order), others];
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
    if (slug === "source-unreachable") return [this.quoted(message), message];
    const query = /(?:query |: )'([^']*)'(?:: (.*)| is not the name of a query.*)/s.exec(message);
    return query ? [this.placeOf(`#/queries/${query[1]}`), query[2] ?? query[0].slice(2)] : [null, ""];
  }

  /** Return the field whose value a message of a source quotes, as in `database "x"`, or its host. */
  quoted(message) {
    const visible = this.fields.filter((field) => !field.node.hidden && !field.spec.secret);
    const text = (field) => String(field.value() ?? "");
    return (
      visible.find((field) => text(field) && message.includes(`${field.spec.name} "${text(field)}"`)) ??
      visible.find((field) => /host|url|account/.test(field.spec.name) && text(field) && message.includes(text(field)))
    );
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

/** Return buttons that lead to fields, whose reasons stand there. */
function listOf(places) {
  const links = [...new Set(places)].map((place) =>
    button(place.label, () => place.control.focus(), { class: "link" }),
  );
  if (links.length === 1) return h("p", {}, "There is a problem with ", links, ".");
  return [
    h("p", {}, `${plural(links.length, "field")} need a change:`),
    h(
      "ul",
      {},
      links.map((entry) => h("li", {}, entry)),
    ),
  ];
}
