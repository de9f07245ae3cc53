// The HTTP API: one function for requests, errors as `Problem`, events, and downloads.

import { button, formatSize, h, plural, say } from "./dom.js";
import { guardTransfer } from "./unsaved.js";

const BASE = new URL("v1/", document.baseURI);
const KEY = "datasources.token";
const RECONNECT_PAUSE = 1000; // milliseconds
const BLOB_LIMIT = 50_000_000; // bytes that a download without a link may hold in memory

export const session = {
  get token() {
    return sessionStorage.getItem(KEY);
  },
  set token(value) {
    if (value) sessionStorage.setItem(KEY, value);
    else sessionStorage.removeItem(KEY);
  },
  expired: () => {}, // set by the page: called when a token is not valid any more
};

/** An error of the API, made of its problem document. */
export class Problem extends Error {
  constructor(status, document) {
    super(document.detail ?? "the server gave no reason");
    this.name = "Problem";
    this.status = status;
    this.slug = String(document.type ?? "").replace("urn:datasources:error:", "");
    this.errors = document.errors ?? [];
    this.setting = document.setting;
    this.reference = String(document.instance ?? "").replace("urn:uuid:", "");
  }
}

const noAnswer = () =>
  new Problem(0, { detail: "The server does not answer; check the connection, and try again" });

/** Return the path of a route, its parts encoded. */
export const at = (...parts) => parts.map(encodeURIComponent).join("/");

function urlOf(path, query) {
  const url = new URL(path, BASE);
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== null && value !== "") url.searchParams.set(name, value);
  }
  return url;
}

async function send(method, path, { body, query = {}, version, headers = {}, signal } = {}) {
  const url = urlOf(path, query);
  const { token } = session;
  const sent = { Authorization: `Bearer ${token}`, ...headers };
  if (body !== undefined) {
    sent["Content-Type"] = method === "PATCH" ? "application/merge-patch+json" : "application/json";
  }
  if (version !== undefined) sent["If-Match"] = `"${version}"`;
  let response;
  try {
    response = await fetch(url, {
      method,
      headers: sent,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
      credentials: "omit",
      cache: "no-store",
      redirect: "error",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw noAnswer();
  }
  if (response.ok) return response;
  const problem = new Problem(response.status, await response.json().catch(() => ({})));
  if (response.status === 401) expire(token);
  throw problem;
}

/** Tell the page that a token is not valid any more, unless it has another one meanwhile. */
function expire(token) {
  if (token === session.token) session.expired();
}

/**
 * Send a request and return the JSON of the answer, null if it has none.
 *
 * With `exact`, whole numbers that JavaScript would round are texts.
 */
export async function api(method, path, { exact = false, ...options } = {}) {
  const response = await send(method, path, options);
  if (response.status === 204) return null;
  return exact ? JSON.parse(await response.text(), exactNumber) : response.json();
}

function exactNumber(_, value, context) {
  const isRounded = Number.isInteger(value) && !Number.isSafeInteger(value);
  return isRounded && /^-?\d+$/.test(context?.source) ? context.source : value;
}

/**
 * Yield the events of a stream of server-sent events, to the one that is named `end`. A connection
 * that breaks is made again, after the last event that has arrived.
 */
export async function* events(path, signal) {
  let last = null;
  for (;;) {
    try {
      const headers = last === null ? {} : { "Last-Event-ID": last };
      const response = await send("GET", path, { headers, signal });
      for await (const event of readEvents(response.body)) {
        last = event.id ?? last;
        yield event;
        if (event.event === "end") return;
      }
    } catch (error) {
      if (signal.aborted || error.status) throw error; // the server has refused, it is not away
    }
    await new Promise((resolve) => setTimeout(resolve, RECONNECT_PAUSE));
    signal.throwIfAborted();
  }
}

/** Yield the events of a body: objects with `event`, `data`, and maybe `id`. */
async function* readEvents(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const lines = block.split("\n").filter((line) => line && !line.startsWith(":"));
        const event = Object.fromEntries(lines.map((line) => line.split(/: ?(.*)/s).slice(0, 2)));
        if (event.data) yield { ...event, data: JSON.parse(event.data) };
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // so that the server hears that nobody reads any more
  }
}

/**
 * Download an item. The server makes a link that works once, and the browser downloads it as any
 * file. A server without links sends small items to the page, which shows the progress.
 *
 * The browser does not show why a download fails. So the item is described before, and a stored query
 * previewed, which needs its parameters.
 */
export async function download(source, item, format, parameters) {
  const body = { item, ...(format && { format }), ...(parameters && { parameters }) };
  const [route, asked] = parameters ? ["preview", { item, parameters, rows: 1 }] : ["describe", { item }];
  await api("POST", `${at("sources", source)}/${route}`, { body: asked });
  let made;
  try {
    made = await api("POST", "links", { body: { source, ...body } });
  } catch (error) {
    if (error.slug !== "not-found" && error.slug !== "not-supported") throw error;
    return downloadHere(item, (signal) => send("POST", `${at("sources", source)}/content`, { body, signal }));
  }
  const url = new URL(made.url, BASE);
  if (url.origin !== BASE.origin) throw new Error("the link of the download leads to another server");
  save(url.href, "");
  const most = format && made.max_rows !== null ? ` It has ${plural(made.max_rows, "row")} at most.` : "";
  say(`The browser downloads the file.${most}`);
}

/** Download a file of a workspace through the page. */
export function downloadFile(workspace, path) {
  const route = `${at("workspaces", workspace)}/files/${at(...path.split("/"))}`;
  return downloadHere(path, (signal) => send("GET", route, { signal }));
}

/** Download the response of a request into the memory of the page, and then to a file. */
async function downloadHere(title, request) {
  const stop = new AbortController();
  const row = new TransferRow(`Download of ${title}`, title, () => stop.abort());
  try {
    const response = await request(stop.signal);
    const size = Number(response.headers.get("Content-Length") ?? 0);
    const parts = [];
    let received = 0;
    for (const reader = response.body.getReader(); ;) {
      if (Math.max(size, received) > BLOB_LIMIT) {
        throw new Error(
          `the file is larger than ${formatSize(BLOB_LIMIT)}, which is too large for a download through the page`,
        );
      }
      const { done, value } = await reader.read();
      if (done) break;
      parts.push(value);
      received += value.length;
      row.show(received, size);
    }
    const disposition = response.headers.get("Content-Disposition") ?? "";
    const encoded = /filename\*=UTF-8''([^;]+)/.exec(disposition);
    const url = URL.createObjectURL(new Blob(parts, { type: "application/octet-stream" }));
    save(url, encoded ? decodeURIComponent(encoded[1]) : "download");
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
    say(`Downloaded ${formatSize(received)}.`);
  } catch (error) {
    stop.abort();
    if (error.name !== "AbortError") throw error;
    say("The download was cancelled.");
  } finally {
    row.remove();
  }
}

/**
 * Send a file as the body of a request, with its progress and a button to cancel; resolves to the
 * JSON of the answer. `fetch` does not tell how much of a body was sent.
 */
export function upload(path, query, file, headers = {}) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const { token } = session;
    const row = new TransferRow(`Upload of ${file.name}`, file.name, () => request.abort());
    const failed = (error) => () => reject(error);
    request.upload.addEventListener("progress", (event) => row.show(event.loaded, event.total));
    request.addEventListener("error", failed(noAnswer()));
    request.addEventListener("abort", failed(new DOMException("the upload was cancelled", "AbortError")));
    request.addEventListener("load", () => {
      if (request.status < 300) return resolve(request.response);
      if (request.status === 401) expire(token);
      return reject(new Problem(request.status, request.response ?? {}));
    });
    request.addEventListener("loadend", () => row.remove());
    request.open("POST", urlOf(path, query));
    request.responseType = "json";
    const all = { Authorization: `Bearer ${token}`, "Content-Type": "application/octet-stream", ...headers };
    for (const [name, value] of Object.entries(all)) request.setRequestHeader(name, value);
    request.send(file);
  });
}

/** A row at the foot of the page about a file that is being sent or received. */
class TransferRow {
  constructor(label, title, cancel) {
    this.bar = h("progress", { "aria-label": label });
    this.amount = h("span", { class: "dim" }, "waiting");
    const name = h("span", { class: "name", title }, title);
    this.node = h("div", { class: "download" }, name, this.bar, this.amount, button("Cancel", cancel));
    this.done = guardTransfer();
    document.getElementById("downloads").append(this.node);
  }

  show(bytes, total) {
    if (total) [this.bar.max, this.bar.value] = [total, bytes];
    this.amount.textContent = total ? `${formatSize(bytes)} of ${formatSize(total)}` : formatSize(bytes);
  }

  remove() {
    this.done();
    this.node.remove();
  }
}

function save(url, name) {
  // With `download`, an answer that is an error does not replace the page.
  const anchor = h("a", { href: url, download: name, hidden: true });
  document.body.append(anchor);
  anchor.click();
  anchor.remove();
}
