// The part of the form of a source that has its stored queries.

import { button, h, newId, plural } from "./dom.js";
import { Input, difference, escapePointer, same, textInput } from "./fields.js";
import { Setting, uniquely } from "./settings.js";

const TYPES = ["text", "integer", "number", "boolean", "date", "timestamp"];

/** The queries that are stored with a source. */
export class QueriesSetting extends Setting {
  constructor(source) {
    super("Stored queries");
    this.key = "queries";
    this.stored = source?.queries ?? {};
    this.list = h("div", {});
    this.cards = [];
    for (const [name, query] of Object.entries(this.stored)) this.add(name, query);
    this.node.append(
      h("p", { class: "help" }, "Everybody who may read the source can use them, without the right to query."),
      this.list,
      button("Add a query", () => this.add("", {}).name.control.focus()),
    );
    this.toggle();
  }

  add(name, query) {
    const card = new QueryCard(name, query, () => {
      this.cards.splice(this.cards.indexOf(card), 1);
      card.node.remove();
      this.toggle();
    });
    this.cards.push(card);
    this.list.append(card.node);
    this.toggle();
    return card;
  }

  toggle() {
    this.showState(this.cards.length ? plural(this.cards.length, "query", "queries") : "none");
  }

  get places() {
    return this.cards.flatMap((card) => card.places);
  }

  value() {
    return uniquely(
      "queries",
      this.cards.map((card) => [card.id, card.value()]),
    );
  }

  patch() {
    const value = this.value();
    return same(value, this.stored) ? undefined : difference(this.stored, value);
  }
}

/** The fields of one stored query. */
export class QueryCard {
  constructor(name, query, remove) {
    const pointer = (rest) => () => `#/queries/${escapePointer(this.id)}${rest}`;
    const code = h("textarea", { rows: 4, class: "code", spellcheck: "false", value: query.text ?? "" });
    this.name = new Input(
      pointer(""),
      "Name of the query",
      textInput(name, { maxlength: 100 }),
      "Lower-case letters, digits, - and _.",
    );
    this.description = new Input(pointer("/description"), "Description", textInput(query.description));
    this.text = new Input(pointer("/text"), "Text of the query", code, ":name stands for the value of a parameter.");
    this.list = h("div", {});
    this.offers = h("div", { class: "row small" });
    this.parameters = [];
    for (const [parameter, spec] of Object.entries(query.parameters ?? {})) this.add(parameter, spec);
    [this.stored, this.initial] = [query, this.typed()];
    code.addEventListener("input", () => this.offer());
    this.offer();
    this.node = h(
      "fieldset",
      { class: "card" },
      h("legend", { class: "hidden" }, "Query"),
      h("div", { class: "columns" }, this.name.node, this.description.node),
      this.text.node,
      this.list,
      this.offers,
      remove && h("p", {}, button("Remove the query", remove, { class: "danger" })),
    );
  }

  get id() {
    return this.name.control.value.trim();
  }

  get places() {
    return [this.name, this.description, this.text, ...this.parameters.flatMap((parameter) => parameter.places)];
  }

  add(name, spec) {
    const row = new ParameterRow(this, name, spec, () => {
      this.parameters.splice(this.parameters.indexOf(row), 1);
      row.node.remove();
      this.offer();
    });
    this.parameters.push(row);
    this.list.append(row.node);
    return row;
  }

  /** Offer to declare the names in the text that are no parameters yet. */
  offer() {
    const found = [...this.text.control.value.matchAll(/(?<![:\w]):([a-z_][a-z0-9_]{0,49})/g)].map(([, name]) => name);
    const missing = [...new Set(found)].filter((name) => !this.parameters.some((row) => row.name === name));
    const declare = (name) => {
      const row = this.add(name, {});
      this.offer();
      row.type.control.focus();
    };
    this.offers.replaceChildren(
      ...missing.map((name) => button(`Declare the parameter ${name}`, () => declare(name), { class: "choice" })),
    );
  }

  /** Return all that is typed, to tell if something has changed. */
  typed() {
    const values = this.places.slice(1).map(({ control }) => control.value);
    return JSON.stringify([values, this.parameters.map(({ name, required }) => [name, required.checked])]);
  }

  value() {
    // As it is stored, as controls cannot hold every text and number.
    if ("text" in this.stored && this.typed() === this.initial) return this.stored;
    return {
      text: this.text.control.value.trim(),
      parameters: Object.fromEntries(this.parameters.map((row) => [row.name, row.value()])),
      description: this.description.control.value.trim(),
    };
  }
}

class ParameterRow {
  constructor(card, name, spec, remove) {
    this.name = name;
    this.stored = spec;
    const pointer = (rest) => () => `#/queries/${escapePointer(card.id)}/parameters/${name}/${rest}`;
    const options = TYPES.map((type) => h("option", { value: type, selected: type === spec.type }, type));
    const fallback = textInput(valueText(spec.default), { placeholder: spec.required === false ? "NULL" : "" });
    const choices = h("textarea", { rows: 2, spellcheck: "false", value: (spec.choices ?? []).join("\n") });
    this.required = h("input", { type: "checkbox", id: newId("required"), checked: spec.required !== false });
    this.type = new Input(pointer("type"), "Type", h("select", {}, options));
    this.fallback = new Input(pointer("default"), "Default", fallback, "Empty: NULL.");
    this.choices = new Input(pointer("choices"), "Choices", choices, "One on each line. Empty: any value.");
    this.description = new Input(pointer("description"), "Description", textInput(spec.description));
    this.places = [this.type, this.fallback, this.choices, this.description];
    this.node = h(
      "fieldset",
      { class: "parameter" },
      h("legend", {}, `Parameter ${name}`),
      h(
        "div",
        { class: "columns narrow" },
        this.places.map((place) => place.node),
      ),
      h(
        "div",
        { class: "row" },
        this.required,
        h("label", { for: this.required.id }, "A value must be given"),
        button("Remove", remove, { class: "quiet", "aria-label": `Remove the parameter ${name}` }),
      ),
    );
    const toggle = () => (this.fallback.node.hidden = this.required.checked);
    this.required.addEventListener("change", toggle);
    toggle();
  }

  value() {
    const type = this.type.control.value;
    const required = this.required.checked;
    const texts = this.choices.control.value
      .split("\n")
      .map((text) => text.trim())
      .filter(Boolean);
    const fallback = this.fallback.control.value.trim();
    return {
      type,
      required,
      default: required || fallback === "" ? null : typed(type, fallback),
      description: this.description.control.value.trim(),
      choices: texts.map((text) => typed(type, text)),
    };
  }
}

const valueText = (value) => (value === null || value === undefined ? "" : String(value));

/** Return a typed text as the value of a parameter, in the form that JSON has. */
export function typed(type, text) {
  if (type === "boolean" && /^(true|false)$/.test(text)) return text === "true";
  // Numbers that JavaScript would round stay as text, which the server reads, too.
  if (["integer", "number"].includes(type) && String(Number(text)) === text) return Number(text);
  return text;
}
