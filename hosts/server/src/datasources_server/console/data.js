// Rows as tables, and figures of columns with small plots.

import { api, at } from "./api.js";
import { formatNumber, h, plural, svg } from "./dom.js";

const ROWS = 100;
const BINS = 16;
const TIME = /^(\d{4}-\d\d-\d\d)T(\d\d:\d\d(?::\d\d(?:\.\d+)?)?)(Z|[+-]\d\d:?\d\d)?$/; // ISO 8601
const LONGEST = 500; // characters of a cell that are shown

/** Return the preview of an item, with the rows that the server allows. */
export async function preview(source, item, signal, parameters) {
  const given = { item, ...(parameters && { parameters }) };
  const route = `${at("sources", source.id)}/preview`;
  try {
    return await api("POST", route, { body: { ...given, rows: ROWS }, signal, exact: true });
  } catch (error) {
    if (!error.errors?.some(({ pointer }) => pointer === "#/rows")) throw error;
    return api("POST", route, { body: given, signal, exact: true });
  }
}

/** Return the types of columns by name. */
export function columnTypes(metadata) {
  const columns = (metadata.columns ?? []).filter((column) => typeof column === "object");
  return new Map(columns.map((column) => [column.name, column.type]));
}

export function isNumeric(values) {
  const given = values.filter((value) => value !== null && value !== "");
  return (
    given.length > 0 &&
    given.every((value) => typeof value !== "boolean" && typeof value !== "object" && Number.isFinite(Number(value)))
  );
}

function cell(value, numeric) {
  if (value === null) return h("td", { class: "null" }, "null");
  const text = typeof value === "object" ? JSON.stringify(value) : String(value);
  const time = TIME.exec(text);
  if (time) return h("td", { title: text }, `${time[1]} ${time[2]} ${time[3] ?? ""}`.trim());
  const cut = text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text;
  return h("td", { class: numeric ? "number" : null, title: text.length > 40 ? cut : null }, cut);
}

/** Return a preview as a table: names and types of columns, rows, and what was left out. */
export function dataTable(rows, types) {
  const numeric = rows.columns.map((_, column) => isNumeric(rows.rows.map((row) => row[column])));
  const head = rows.columns.map((name, column) =>
    h(
      "th",
      { scope: "col", class: numeric[column] ? "number" : null },
      name,
      types.get(name) && h("span", { class: "type" }, types.get(name)),
    ),
  );
  const body = rows.rows.map((row) =>
    h(
      "tr",
      {},
      row.map((value, column) => cell(value, numeric[column])),
    ),
  );
  const count = rows.truncated
    ? `The first ${plural(rows.rows.length, "row")}; there are more.`
    : `${plural(rows.rows.length, "row")}, all there are.`;
  const table = h(
    "table",
    { class: "data" },
    h("caption", { class: "hidden" }, "Rows"),
    h("thead", {}, h("tr", {}, head)),
    h("tbody", {}, body),
  );
  return h(
    "div",
    {},
    h("div", { class: "scroll", role: "region", "aria-label": "Rows", tabindex: "0" }, table),
    h("p", { class: "dim small" }, count),
    (rows.notes ?? []).map((note) => h("p", { class: "dim small" }, note)),
  );
}

/** Return figures of the numeric columns of the rows that are shown. */
export function statisticsOf(rows) {
  const columns = {};
  rows.columns.forEach((name, column) => {
    const values = rows.rows.map((row) => row[column]);
    if (!isNumeric(values)) return;
    const numbers = values.filter((value) => value !== null && value !== "").map(Number);
    columns[name] = {
      count: numbers.length,
      nulls: values.length - numbers.length,
      min: Math.min(...numbers),
      max: Math.max(...numbers),
      mean: numbers.reduce((sum, number) => sum + number, 0) / numbers.length,
    };
  });
  return columns;
}

/** Return a table of figures; `whole` says that they are those of all rows. */
export function statisticsView(columns, rows, whole) {
  const entries = Object.entries(columns);
  if (!entries.length) return h("p", { class: "dim" }, "There are no numeric columns.");
  const line = ([name, figures]) => {
    const column = rows.columns.indexOf(name);
    const values = rows.rows
      .map((row) => row[column])
      .filter((value) => value !== null && value !== undefined && value !== "")
      .map(Number)
      .filter(Number.isFinite); // not of the texts `nan` and `inf`
    const cells = [figures.count, figures.nulls, figures.min, figures.mean, figures.max].map((value) =>
      h("td", { class: "number" }, formatNumber(value)),
    );
    return h(
      "tr",
      {},
      h("th", { scope: "row" }, name),
      cells,
      h("td", {}, histogram(name, values)),
      h("td", {}, rangeBar(name, figures)),
    );
  };
  const labels = ["Column", "Values", "Nulls", "Least", "Mean", "Greatest", "Histogram", "Mean in the range"];
  const head = labels.map((label, column) =>
    h("th", { scope: "col", class: column > 0 && column < 6 ? "number" : null }, label),
  );
  const sampled = entries.some(([, figures]) => figures.sampled);
  const shown = `the ${plural(rows.rows.length, "row")} of the preview`;
  const note = whole
    ? `Figures of ${sampled ? "a sample of the rows" : "all rows"}; histograms of ${shown}.`
    : `Of ${shown}.`;
  const table = h(
    "table",
    { class: "list" },
    h("caption", { class: "hidden" }, "Statistics"),
    h("thead", {}, h("tr", {}, head)),
    h("tbody", {}, entries.map(line)),
  );
  return h(
    "div",
    {},
    h("p", { class: "dim small" }, note),
    h("div", { class: "scroll", role: "region", "aria-label": "Statistics", tabindex: "0" }, table),
  );
}

/** Return the bars of how often values of each range occur. */
function histogram(name, values) {
  if (!values.length) return "";
  const [least, greatest] = [Math.min(...values), Math.max(...values)];
  const width = (greatest - least) / BINS || 1;
  const bins = Array(BINS).fill(0);
  for (const value of values) bins[Math.min(BINS - 1, Math.floor((value - least) / width))]++;
  const most = Math.max(...bins);
  const bars = bins.map((count, bin) => {
    const height = (28 * count) / most;
    return svg("rect", { x: bin * 7, y: 30 - height, width: 6, height, rx: 1 });
  });
  const label = `Histogram of ${name}: ${plural(values.length, "value")} from ${formatNumber(least)} to ${formatNumber(greatest)}`;
  return svg("svg", { class: "plot", viewBox: "0 0 112 30", role: "img", "aria-label": label }, bars);
}

/** Return where the mean lies between the least and the greatest value. */
function rangeBar(name, { min, mean, max }) {
  const [low, middle, high] = [min, mean, max].map(Number);
  if (min === null || !(high > low)) return "";
  const place = 100 * Math.min(1, Math.max(0, (middle - low) / (high - low)));
  const label = `The mean of ${name} lies at ${Math.round(place)} % between least and greatest`;
  return svg(
    "svg",
    { class: "plot range", viewBox: "0 0 108 30", role: "img", "aria-label": label },
    svg("rect", { class: "track", x: 4, y: 13, width: 100, height: 4, rx: 2 }),
    svg("circle", { cx: 4 + place, cy: 15, r: 5 }),
  );
}
