// Elements, dialogs, messages, and the one form of numbers and times. Text from anywhere becomes
// text nodes only; no function here takes HTML.

const PROPERTIES = new Set(["value", "checked", "disabled", "hidden", "tabIndex", "indeterminate"]);

/** Return a new element. Functions among the properties are listeners: `onclick`, `oninput`. */
export function h(tag, properties = {}, ...children) {
  return fill(document.createElement(tag), properties, children);
}

/** Return a new element of SVG. */
export function svg(tag, properties = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), properties, children);
}

function fill(node, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else if (PROPERTIES.has(name)) node[name] = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  const shown = children.flat(2).filter((child) => child !== null && child !== undefined && child !== false);
  node.append(...shown);
  return node;
}

let lastId = 0;
export const newId = (prefix) => `${prefix}-${++lastId}`;

const ICONS = {
  folder: "M2 5h5l1.5 2H14v7H2z",
  table: "M2 3h12v11H2zM2 7h12M6 7v7",
  query: "M3 4l4 4-4 4M8 13h5",
  database:
    "M3 4c0-1.1 2.2-2 5-2s5 .9 5 2-2.2 2-5 2-5-.9-5-2zM3 4v8c0 1.1 2.2 2 5 2s5-.9 5-2V4M3 8c0 1.1 2.2 2 5 2s5-.9 5-2",
  auto: "M8 2a6 6 0 1 0 0 12zM8 2a6 6 0 0 1 0 12",
  light: "M8 5a3 3 0 1 0 0 6 3 3 0 0 0 0-6zM8 1v1.5M8 13.5V15M1 8h1.5M13.5 8H15M3 3l1 1M12 12l1 1M3 13l1-1M12 4l1-1",
  dark: "M13.5 9.5A6 6 0 0 1 6.5 2.5a6 6 0 1 0 7 7z",
  file: "M4 2h5l3 3v9H4zM9 2v3h3",
};

export function icon(name) {
  const path = svg("path", { d: ICONS[name] ?? ICONS.file });
  return svg("svg", { class: "icon", viewBox: "0 0 16 16", "aria-hidden": "true" }, path);
}

export function button(label, onclick, properties = {}) {
  return h("button", { type: "button", onclick, ...properties }, label);
}

/** Return a link to a page of the console; parts and parameters are encoded. */
export function link(parts, label, parameters = {}, properties = {}) {
  return h("a", { href: address(parts, parameters), ...properties }, label);
}

export function address(parts, parameters = {}) {
  const given = Object.entries(parameters).filter(([, value]) => value);
  const query = new URLSearchParams(given.map(([name, value]) => [name, wellFormed(value)])).toString();
  return `#/${parts.map((part) => encodeURIComponent(wellFormed(part))).join("/")}${query ? `?${query}` : ""}`;
}

// Names from sources may hold halves of surrogate pairs, which no address can.
const wellFormed = (text) => String(text).toWellFormed();

/**
 * Run an action of a button: it is disabled meanwhile, and an error becomes a message. The button
 * gets the focus back, which it loses by being disabled, if nothing else has it.
 */
export async function busy(control, action) {
  const isFocused = document.activeElement === control;
  control.disabled = true;
  control.setAttribute("aria-busy", "true");
  try {
    return await action();
  } catch (error) {
    if (error.name !== "AbortError") say(error.message, "error");
    return undefined;
  } finally {
    control.disabled = false;
    control.removeAttribute("aria-busy");
    // What the action has shown must stay in view.
    if (isFocused && document.activeElement === document.body) control.focus({ preventScroll: true });
  }
}

let hiding = 0;
/** Show a message for a few seconds; screen readers speak it. */
export function say(text, kind = "done") {
  const status = document.getElementById("status");
  status.className = kind;
  status.textContent = text;
  clearTimeout(hiding);
  hiding = setTimeout(() => (status.textContent = ""), kind === "error" ? 12000 : 5000);
}

/** Return a box that tells an error, with a button to try again if `retry` is given. */
export function errorBox(error, retry) {
  const again = retry && button("Try again", retry);
  const reference = error.reference && h("p", { class: "dim small" }, `Request ${error.reference}`);
  return h("div", { class: "box error", role: "alert" }, h("p", {}, sentence(error.message)), reference, again);
}

export const chip = (text, kind = "", title) => h("span", { class: `chip ${kind}`, title }, text);

/** Return the links to the pages above this one. */
export function crumbs(...links) {
  return h("nav", { "aria-label": "Breadcrumb", class: "crumbs" }, links);
}

/** Return a box that scrolls, also by keyboard. */
export function region(label, ...content) {
  return h("div", { class: "scroll", role: "region", "aria-label": label, tabindex: "0" }, content);
}

/**
 * Return a table of rows; a column without a name has buttons.
 *
 * @param numbers Columns that are aligned to the right.
 * @param wide Columns that narrow screens do not show.
 */
export function table(caption, columns, rows, { numbers = [], wide = [], kind = "list" } = {}) {
  const head = columns.map((label, column) =>
    h(
      "th",
      {
        scope: "col",
        class: `${numbers.includes(column) ? "number" : ""} ${wide.includes(column) ? "wide-only" : ""}`,
      },
      label || h("span", { class: "hidden" }, "Actions"),
    ),
  );
  return h(
    "table",
    { class: kind },
    h("caption", { class: "hidden" }, caption),
    h("thead", {}, h("tr", {}, head)),
    h("tbody", {}, rows),
  );
}

/** Return what is shown where there is nothing. */
export function emptyState(title, text, ...actions) {
  return h(
    "div",
    { class: "empty" },
    h("h2", {}, title),
    text && h("p", {}, text),
    actions.some(Boolean) && h("p", { class: "row center" }, actions),
  );
}

export function sentence(text) {
  const trimmed = String(text).trim();
  const start = trimmed.charAt(0).toUpperCase() + trimmed.slice(1);
  return /[.!?…]$/.test(start) ? start : `${start}.`;
}

/**
 * Open a dialog and return the value of the action that ended it, null for none.
 *
 * Each action has `label`, `value`, and maybe `kind` and `run`, a coroutine function; the dialog
 * stays open while it runs, and if it returns false or throws.
 */
export function openDialog(title, content, actions, { wide = false } = {}) {
  return new Promise((resolve) => {
    const heading = newId("dialog");
    const problem = h("div", { "aria-live": "assertive" });
    let result = null;
    // The dialog stays while an action runs: its result, such as a new token, is shown nowhere else.
    const setRunning = (running) => {
      for (const control of controls) control.disabled = running;
    };
    const run = async (action, control) => {
      problem.replaceChildren();
      setRunning(true);
      try {
        if (action.run && (await action.run()) === false) return;
        result = action.value ?? null;
        box.close();
      } catch (error) {
        problem.replaceChildren(errorBox(error));
      } finally {
        setRunning(false);
        if (document.activeElement === document.body) control.focus({ preventScroll: true });
      }
    };
    const controls = actions.map((action, number) => {
      const last = number === actions.length - 1;
      const control = h("button", { type: last ? "submit" : "button", class: action.kind }, action.label);
      if (!last) control.addEventListener("click", () => run(action, control));
      return control;
    });
    const form = h(
      "form",
      {
        novalidate: true,
        onsubmit: (event) => {
          event.preventDefault();
          run(actions.at(-1), controls.at(-1));
        },
      },
      h("h2", { id: heading }, title),
      content,
      problem,
      h("div", { class: "row end" }, controls),
    );
    const box = h("dialog", { "aria-labelledby": heading, class: wide ? "wide" : null }, form);
    const opener = document.activeElement;
    box.addEventListener("cancel", (event) => {
      if (controls.some((control) => control.disabled)) event.preventDefault();
    });
    box.addEventListener("close", () => {
      box.remove();
      if (opener?.isConnected) opener.focus();
      resolve(result);
    });
    document.body.append(box);
    box.showModal();
    const safe = actions.at(-1).kind === "danger" ? controls[0] : controls.at(-1);
    (box.querySelector("input, textarea, select") ?? safe).focus();
  });
}

export async function confirm(title, text, label, { kind = "danger", run, back = "Cancel" } = {}) {
  const actions = [{ label: back }, { label, value: true, kind, run }];
  return (await openDialog(title, h("p", {}, text), actions)) === true;
}

/** Return a labelled control; `help` is read with it. */
export function labelled(label, control, help) {
  control.id ||= newId("field");
  const note = help && h("p", { class: "help", id: `${control.id}-help` }, help);
  if (note) control.setAttribute("aria-describedby", note.id);
  return h("div", { class: "field" }, h("label", { for: control.id }, label), control, note);
}

const WHOLE = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const SHORT = new Intl.NumberFormat("en-US", { maximumSignificantDigits: 6 });

export function formatNumber(value) {
  const number = Number(value);
  if (value === null || value === undefined || value === "" || !Number.isFinite(number)) return String(value ?? "–");
  // A text of digits is not rounded.
  return Number.isInteger(number) ? WHOLE.format(value) : SHORT.format(number);
}

export function formatSize(bytes) {
  if (bytes === null || bytes === undefined) return "";
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let [amount, unit] = [bytes, 0];
  while (amount >= 999.5 && unit < units.length - 1) [amount, unit] = [amount / 1000, unit + 1];
  return `${unit && amount < 9.95 ? amount.toFixed(1) : Math.round(amount)} ${units[unit]}`;
}

/** Return a time as an element: local, `2026-01-31 14:05`, with the exact one as its title. */
export function formatTime(value, { seconds = false } = {}) {
  if (value === null || value === undefined) return "";
  const time = new Date(typeof value === "number" ? value * 1000 : value);
  if (Number.isNaN(time.getTime())) return String(value);
  const two = (number) => String(number).padStart(2, "0");
  const day = `${time.getFullYear()}-${two(time.getMonth() + 1)}-${two(time.getDate())}`;
  const exact = time.toISOString();
  const clock = [time.getHours(), time.getMinutes(), ...(seconds ? [time.getSeconds()] : [])].map(two).join(":");
  return h("time", { datetime: exact, title: exact }, `${day} ${clock}`);
}

export function formatSeconds(seconds) {
  if (seconds >= 90) {
    const minutes = Math.floor(seconds / 60);
    return minutes < 60
      ? `${minutes} min ${Math.round(seconds % 60)} s`
      : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  }
  return seconds < 1 ? `${Math.round(seconds * 1000)} ms` : `${seconds.toFixed(1)} s`;
}

const TYPE_NAMES = {
  azure_blob: "Azure Blob",
  gcs: "Google Cloud Storage",
  http_files: "Web server files",
  local_file: "Local files",
  postgresql: "PostgreSQL",
  sqlite: "SQLite",
};

/** Return the name of a type of sources for people. */
export function typeName(type) {
  if (Object.hasOwn(TYPE_NAMES, type)) return TYPE_NAMES[type];
  const words = type.replaceAll("_", " ");
  return words.charAt(0).toUpperCase() + words.slice(1);
}

export function plural(count, noun, nouns = `${noun}s`) {
  return `${formatNumber(count)} ${count === 1 ? noun : nouns}`;
}
