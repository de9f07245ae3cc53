// The page: sign in, the header, and the page of the address.

import { Problem, api, session } from "./api.js";
import { address, button, confirm, emptyState, errorBox, h, icon, labelled, link, openDialog } from "./dom.js";
import { auditPage } from "./audit.js";
import { editPage, newPage, typesPage } from "./edit.js";
import { itemPage } from "./item.js";
import { jobPage, jobsPage } from "./jobs.js";
import { queryPage } from "./query.js";
import { sourcePage, sourcesPage } from "./sources.js";
import { tokensPage } from "./tokens.js";
import { mayLeave } from "./unsaved.js";

const PAGES = {
  "": sourcesPage,
  add: (page) => (page.id ? newPage(page) : typesPage(page)),
  edit: editPage,
  source: sourcePage,
  item: itemPage,
  query: queryPage,
  jobs: jobsPage,
  job: jobPage,
  tokens: tokensPage,
  audit: auditPage,
};
// Name of the page, label, whether a caller sees it, and the pages below it.
const SECTIONS = [
  ["", "Sources", () => true, ["", "add", "edit", "source", "item"]],
  ["query", "Query", () => true, ["query"]],
  ["jobs", "Jobs", () => true, ["jobs", "job"]],
  ["tokens", "Tokens", (me) => me.tokens, ["tokens"]],
  ["audit", "Audit", (me) => me.admin, ["audit"]],
];
const THEMES = ["auto", "light", "dark"];
const main = document.getElementById("main");
let me = null;
let leave = new AbortController(); // of the page that is shown
let current = null; // its address

function applyTheme(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
}

function themeButton() {
  const current = () => localStorage.getItem("datasources.theme") ?? "auto";
  const control = button("", () => {
    localStorage.setItem("datasources.theme", THEMES[(THEMES.indexOf(current()) + 1) % THEMES.length]);
    show();
  });
  const show = () => {
    const label = `Theme: ${current()}`;
    applyTheme(current());
    control.replaceChildren(icon(current()));
    control.title = label;
    control.setAttribute("aria-label", label);
  };
  control.className = "quiet";
  show();
  return control;
}

function showHeader() {
  const { name: at } = parse();
  const entries = me ? SECTIONS.filter(([, , allowed]) => allowed(me)) : [];
  const current = SECTIONS.find(([, , , pages]) => pages.includes(at));
  const links = entries.map(([name, label]) =>
    link(name ? [name] : [], label, {}, { "aria-current": name === current?.[0] && "page" }),
  );
  document
    .getElementById("top")
    .replaceChildren(
      link([], [icon("database"), "datasources"], {}, { class: "brand" }),
      h("nav", { "aria-label": "Pages" }, links),
      h(
        "div",
        { class: "row" },
        themeButton(),
        me && h("span", { class: "dim who" }, me.id),
        me && button("Sign out", signOut, { class: "quiet" }),
      ),
    );
}

/** Return a part of the address without its encoding, or as it is if that is malformed. */
function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** Return the address's page, the id in it, and its parameters. */
function parse() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  const [name, ...rest] = path.split("/").map(decoded);
  return { name, id: rest[0] ?? "", query: new URLSearchParams(query ?? "") };
}

const loading = () =>
  h(
    "div",
    { class: "loading" },
    h("p", { class: "hidden" }, "Loading…"),
    Array.from({ length: 6 }, () => h("div", {})),
  );

async function show() {
  leave.abort();
  leave = new AbortController();
  const { signal } = leave;
  for (const dialog of document.querySelectorAll("dialog")) dialog.close(); // of the page before
  current = location.hash;
  const { name, id, query } = parse();
  showHeader();
  const waiting = setTimeout(() => main.replaceChildren(loading()), 250);
  try {
    const render = Object.hasOwn(PAGES, name) ? PAGES[name] : notFound;
    // What ends when somebody is on another page already must not take that page away.
    const here = (action) => (...given) => (signal.aborted ? undefined : action(...given));
    const actions = { go: here(go), move: here(move), reload: here(show) };
    const content = await render({ id, query, me, signal, ...actions });
    if (signal.aborted) return;
    clearTimeout(waiting);
    main.replaceChildren(...content.filter(Boolean));
  } catch (error) {
    if (signal.aborted || error.name === "AbortError" || error.status === 401) return;
    clearTimeout(waiting);
    main.replaceChildren(
      h("h1", { tabindex: "-1" }, error.status === 404 ? "Not found" : "Error"),
      errorBox(error, show),
    );
  } finally {
    clearTimeout(waiting);
  }
  main.dataset.address = current; // whose page is in the document from now on
  const heading = main.querySelector("h1");
  document.title = `${heading?.textContent ?? "Console"} · datasources`;
  if (!main.contains(document.activeElement)) heading?.focus({ preventScroll: true });
  window.scrollTo(0, 0);
}

async function notFound() {
  const home = link([], "All sources", {}, { class: "button" });
  return [h("h1", { tabindex: "-1" }, "Not found"), emptyState("No such page", "The address leads nowhere.", home)];
}

/** Go to a page, or show it anew if it is this one. */
function go(parts, parameters) {
  const target = address(parts, parameters);
  if (target === location.hash) show();
  else location.hash = target;
}

/** Change the address without a new page: the one that is shown is that of the new address, too. */
function move(parts, parameters) {
  main.dataset.address = current = address(parts, parameters);
  location.hash = current;
}

function signInPage(message) {
  leave.abort();
  delete main.dataset.address;
  me = null;
  showHeader();
  const token = h("input", { type: "password", id: "token", autocomplete: "off", spellcheck: "false", required: true });
  const problem = h("div", { "aria-live": "assertive" }, message && h("p", { class: "box error" }, message));
  const form = h(
    "form",
    {
      class: "signin box",
      onsubmit: async (event) => {
        event.preventDefault();
        session.token = token.value.trim();
        await start();
      },
    },
    h("h1", { tabindex: "-1" }, "Sign in"),
    problem,
    h("label", { for: "token" }, "Token"),
    token,
    h(
      "p",
      { class: "help" },
      "A token begins with ds_. The first start of the server writes one to the file that it names; administrators make others. It stays in this tab until you sign out or close it.",
    ),
    h("button", { type: "submit", class: "primary" }, "Sign in"),
  );
  main.replaceChildren(form);
  document.title = "Sign in · datasources";
  token.focus();
}

async function signOut() {
  if (!(await mayLeave())) return;
  session.token = null;
  sessionStorage.clear(); // drafts of queries, too
  history.replaceState(null, "", location.pathname);
  signInPage();
}

/**
 * Take a token from the address, and remove it there, also from the history; returns false if somebody
 * keeps the token of before.
 */
async function takeToken() {
  const given = /^#token=([^&]+)$/.exec(location.hash);
  if (!given) return true;
  history.replaceState(null, "", `${location.pathname}#/`);
  const token = decoded(given[1]);
  // A link of somebody else must not sign people in silently as another user.
  if (session.token && session.token !== token) {
    const text = "You are signed in already. Use the token of this address instead?";
    if (!(await confirm("Change the token", text, "Use the new token", { kind: "primary" }))) return false;
  }
  session.token = token;
  return true;
}

async function start() {
  if (!session.token) return signInPage();
  try {
    me = await api("GET", "me");
  } catch (error) {
    if (error instanceof Problem && error.status === 401) return undefined; // `session.expired` has run
    main.replaceChildren(h("h1", { tabindex: "-1" }, "Error"), errorBox(error, start));
    return undefined;
  }
  return show();
}

let asking = false; // whether the dialog below is open
session.expired = async () => {
  session.token = null;
  const message = "The token is not valid, or not any more.";
  if (!me) signInPage(message);
  else if (!asking) {
    asking = true;
    const user = me.id;
    const again = await signInDialog(message);
    asking = false;
    if (!again) signInPage(message);
    else if (me.id !== user) show();
  }
};

/** Ask for a token over the page, so that what is typed there stays; returns true if it is valid. */
function signInDialog(message) {
  const token = h("input", { type: "password", autocomplete: "off", spellcheck: "false" });
  const run = async () => {
    session.token = token.value.trim();
    me = await api("GET", "me");
    showHeader();
  };
  const content = [h("p", {}, message), labelled("Token", token, "The page stays as it is.")];
  const actions = [{ label: "Sign out" }, { label: "Sign in", value: true, kind: "primary", run }];
  return openDialog("Sign in again", content, actions);
}

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});

let leaving = false; // whether somebody is asked about an unsaved form
window.addEventListener("hashchange", async () => {
  if (location.hash.startsWith("#token=")) {
    if (await takeToken()) await start();
    else history.replaceState(null, "", current || location.pathname); // the page stays
  } else if (me && location.hash !== current && !leaving) {
    leaving = true;
    const leaves = await mayLeave();
    leaving = false;
    if (leaves) show();
    else history.replaceState(null, "", current || location.pathname);
  }
});

// `/` goes to the filter of the page.
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, select, dialog");
  if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const filter = main.querySelector("input[type=search]");
  if (filter) {
    event.preventDefault();
    filter.focus();
  }
});

applyTheme(localStorage.getItem("datasources.theme") ?? "auto");
await takeToken();
await start();
