// Tokens: who may do what with which source.

import { api, at } from "./api.js";
import {
  address,
  button,
  chip,
  confirm,
  emptyState,
  formatTime,
  h,
  labelled,
  newId,
  openDialog,
  region,
  say,
  table,
} from "./dom.js";

const RIGHTS = { read: "list, preview and download items", query: "write queries of their own", write: "upload" };
const EXPIRIES = [
  ["7", "in 7 days"],
  ["30", "in 30 days"],
  ["90", "in 90 days"],
  ["365", "in a year"],
  ["", "never"],
];

export async function tokensPage({ me, query, signal, reload }) {
  const tokens = (await api("GET", "tokens", { signal })).items;
  const add = button("Add token", () => addDialog(signal, reload), { class: "primary" });
  if (query.has("grant")) {
    history.replaceState(null, "", address(["tokens"])); // so that a reload does not ask again
    addDialog(signal, reload, query.get("grant"));
  }
  const used = tokens.some((token) => "last_used_at" in token);
  const row = (token) => {
    const expired = token.expires_at && new Date(token.expires_at) < new Date();
    const revoke = button(
      "Revoke",
      async () => {
        const own = token.name === me.id ? " It is the token that you use now." : "";
        const run = () => api("DELETE", at("tokens", token.name));
        if (
          await confirm(`Revoke ${token.name}?`, `What runs under it ends within seconds.${own}`, "Revoke", { run })
        ) {
          say(`Revoked ${token.name}.`);
          reload();
        }
      },
      { "aria-label": `Revoke ${token.name}` },
    );
    const grants = token.grants.map((grant) =>
      h(
        "div",
        {},
        h("strong", {}, grant.source),
        ` ${grant.rights.join(", ")}`,
        grant.items && h("span", { class: "dim" }, ` of ${grant.items.join(", ")}`),
      ),
    );
    return h(
      "tr",
      {},
      h("th", { scope: "row" }, token.name),
      h("td", {}, token.admin ? chip("administrator", "busy") : grants),
      h("td", { class: "wide-only" }, formatTime(token.created_at)),
      h("td", {}, token.expires_at ? formatTime(token.expires_at) : "never", expired && chip("expired", "unusable")),
      used && h("td", { class: "wide-only" }, token.last_used_at ? formatTime(token.last_used_at) : "–"),
      h("td", { class: "actions-cell" }, revoke),
    );
  };
  const labels = ["Name", "May", "Made", "Expires", ...(used ? ["Last used"] : []), ""];
  const wide = ["Made", "Last used"].map((label) => labels.indexOf(label));
  return [
    h("div", { class: "row spread" }, h("h1", { tabindex: "-1" }, "Tokens"), add),
    h("p", { class: "dim" }, "A token is how a person or a program signs in. It is shown once, when it is made."),
    tokens.length
      ? region("Tokens", table("Tokens", labels, tokens.map(row), { wide }))
      : emptyState("No tokens", "Add one for each person and program."),
  ];
}

/** Ask for a new token; `granted` is the source that it is about at first. */
async function addDialog(signal, reload, granted = "") {
  let sources = [];
  try {
    sources = (await api("GET", "sources", { query: { limit: 200 }, signal })).items;
  } catch (error) {
    if (error.name === "AbortError" || error.status === 401) return;
    say(error.message, "error"); // their ids can be typed nevertheless
  }
  const known = h(
    "datalist",
    { id: newId("sources") },
    sources.map((source) => h("option", { value: source.id })),
  );
  const name = h("input", { type: "text", maxlength: 128, autocomplete: "off", spellcheck: "false" });
  const admin = h("input", { type: "checkbox", id: newId("admin"), onchange: () => (grants.hidden = admin.checked) });
  const expiry = h(
    "select",
    {},
    EXPIRIES.map(([days, label]) => h("option", { value: days, selected: days === "90" }, label)),
  );
  const rows = [];
  const list = h("div", {});
  const addGrant = () => {
    const row = new GrantRow(known.id, rows.length + 1, rows.length ? "" : granted);
    rows.push(row);
    list.append(row.node);
    return row;
  };
  const more = button("Add another source", () => addGrant().source.focus());
  const meanings = Object.entries(RIGHTS).map(([right, meaning]) => `${right}: ${meaning}`);
  const grants = h(
    "fieldset",
    {},
    h("legend", {}, "Sources"),
    h("p", { class: "help" }, `${meanings.join("; ")}.`),
    list,
    more,
    known,
  );
  addGrant();
  let made = null;
  const run = async () => {
    const body = {
      name: name.value.trim(),
      admin: admin.checked,
      expires_days: expiry.value ? Number(expiry.value) : null,
    };
    body.grants = admin.checked ? [] : rows.map((row) => row.read()).filter(Boolean);
    if (!body.name) throw new Error("give the token a name: who uses it");
    if (!body.admin && !body.grants.length) throw new Error("name a source, or make it an administrator's");
    made = await api("POST", "tokens", { body });
  };
  const content = [
    labelled("Name", name, "Who uses it; the audit trail shows this name."),
    grants,
    labelled("Expires", expiry),
    h("div", { class: "row" }, admin, h("label", { for: admin.id }, "Administrator: all sources, all rights, tokens")),
  ];
  await openDialog("Add a token", content, [{ label: "Cancel" }, { label: "Add", value: true, kind: "primary", run }]);
  if (!made) return;
  await showToken(made);
  reload();
}

/** Show a new token, which cannot be read again. */
async function showToken({ name, token }) {
  const field = h("input", {
    type: "text",
    readonly: true,
    value: token,
    class: "code",
    onfocus: () => field.select(),
  });
  const copy = (label, text) => {
    const control = button(label, async () => {
      try {
        await navigator.clipboard.writeText(text);
        control.textContent = "Copied";
      } catch {
        field.select(); // pages without TLS may not write to the clipboard
        say("Press Ctrl+C to copy the token.");
      }
    });
    return control;
  };
  const server = new URL("./", document.baseURI).href;
  const content = [
    labelled(`The token of ${name}`, field, "Copy it now: it is not kept, and cannot be shown again."),
    h("p", {}, "It signs in at ", h("span", { class: "code" }, server), "; programs send it as a bearer token."),
    h(
      "div",
      { class: "row" },
      copy("Copy the token", token),
      copy("Copy a link that signs in", `${server}#token=${token}`),
    ),
  ];
  await openDialog("Token added", content, [{ label: "Done", kind: "primary" }]);
}

class GrantRow {
  constructor(listId, number, source) {
    this.source = h("input", {
      type: "text",
      value: source,
      list: listId,
      placeholder: "id of a source",
      "aria-label": `Source ${number}`,
      autocomplete: "off",
      spellcheck: "false",
    });
    this.pattern = h("input", {
      type: "text",
      placeholder: "all items, or patterns such as public.* or reports/**",
      "aria-label": `Items of source ${number}`,
      autocomplete: "off",
      spellcheck: "false",
    });
    this.rights = Object.keys(RIGHTS).map((right) =>
      h("input", { type: "checkbox", id: newId("right"), checked: right === "read", value: right }),
    );
    const boxes = this.rights.map((box) =>
      h("span", { class: "row" }, box, h("label", { for: box.id, title: RIGHTS[box.value] }, box.value)),
    );
    this.node = h(
      "div",
      { class: "card grant", role: "group", "aria-label": `Grant ${number}` },
      h("div", { class: "row" }, this.source, boxes),
      this.pattern,
    );
  }

  read() {
    const source = this.source.value.trim();
    if (!source) return null;
    const rights = this.rights.filter((box) => box.checked).map((box) => box.value);
    const pattern = this.pattern.value.trim();
    return { source, rights, items: pattern ? [pattern] : null };
  }
}
