// Jobs: fetches into workspaces of the server, their progress, and what has come of them.

import { api, at, downloadFile, events } from "./api.js";
import {
  busy,
  button,
  chip,
  confirm,
  crumbs,
  emptyState,
  errorBox,
  formatNumber,
  formatSeconds,
  formatSize,
  formatTime,
  h,
  link,
  plural,
  region,
  say,
  sentence,
  table,
} from "./dom.js";
import { Pager } from "./list.js";

const PAGE = 50;
const REFRESH = 5000; // milliseconds between two looks for new jobs
const CHIPS = { running: "busy", finished: "ready", failed: "unusable", lost: "unusable", cancelled: "" };

export async function jobsPage({ me, signal }) {
  const list = h("div", {});
  const watched = new Set(); // ids of jobs whose events are read
  let rows = new Map(); // by id, those that are shown
  let shown = "";
  let loading = false;

  const watch = async (id) => {
    if (watched.has(id)) return;
    watched.add(id);
    try {
      await follow(id, signal, (job) => rows.get(id)?.update(job));
    } catch {
      // The next look at the list tells what has become of the job.
    } finally {
      watched.delete(id);
    }
  };
  const load = async (isLatest) => {
    const page = await api("GET", "jobs", { query: { limit: PAGE, cursor: pager.cursor }, signal });
    if (!isLatest()) return;
    const ids = page.items.map((job) => job.id).join();
    if (ids === shown && ids) page.items.forEach((job) => rows.get(job.id).update(job));
    else {
      shown = ids;
      rows = new Map(page.items.map((job) => [job.id, new JobRow(job, me)]));
      list.replaceChildren(...content(page));
    }
    for (const job of page.items) if (job.state === "running") watch(job.id);
  };
  const content = (page) => {
    if (!page.items.length) {
      const text =
        "A job fetches items into a workspace of the server while nobody waits. Programs start them; those that run under your name are shown here, to administrators all.";
      return [emptyState("No jobs", text)];
    }
    const head = ["Job", "State", "Started", "Took", "Fetches", "Result", ""];
    if (me.admin) head.splice(1, 0, "Owner");
    const lines = [...rows.values()].map((row) => row.node);
    const shown = region("Jobs", table("Jobs", head, lines, { wide: [head.indexOf("Took")] }));
    return [shown, pager.controls(page.next_cursor)].filter(Boolean);
  };
  const guarded = async () => {
    const isLatest = pager.ask();
    loading = true;
    try {
      await load(isLatest);
    } catch (error) {
      if (error.name === "AbortError" || !isLatest()) return;
      shown = "";
      list.replaceChildren(problemBox(error, guarded));
    } finally {
      if (isLatest()) loading = false;
    }
  };
  const pager = new Pager("Pages of jobs", guarded, ["Newer", "Older"]);
  await guarded();
  const isIdle = () => !document.hidden && !loading && pager.cursor === null && shown;
  const timer = setInterval(() => isIdle() && guarded(), REFRESH);
  signal.addEventListener("abort", () => clearInterval(timer));
  return [h("h1", { tabindex: "-1" }, "Jobs"), list];
}

function problemBox(error, retry) {
  if (error.status !== 501) return errorBox(error, retry);
  return emptyState("No jobs", "This server has no store for jobs, or no directory for workspaces.");
}

/** Call a function with a job at once and after each of its events, until the job has ended. */
async function follow(id, signal, changed) {
  let job = await api("GET", at("jobs", id), { signal });
  changed(job);
  if (job.state !== "running") return;
  for await (const { event, data } of events(`${at("jobs", id)}/events`, signal)) {
    if (event === "end") job = data;
    else if (event === "progress") job = { ...job, progress: data };
    else if (event === "receipt") job = { ...job, receipts: [...job.receipts, data] };
    changed(job);
  }
}

class JobRow {
  constructor(job, me) {
    this.me = me;
    this.node = h("tr", {});
    this.state = null;
    this.update(job);
  }

  update(job) {
    const state = JSON.stringify(job);
    if (state === this.state) return; // so that the focus stays
    this.state = state;
    if (this.job?.state === job.state && job.state === "running" && this.job.cancelling === job.cancelling) {
      this.job = job;
      this.result.replaceChildren(result(job));
      this.took.replaceChildren(took(job));
      return;
    }
    this.job = job;
    this.result = h("td", { class: "grow" }, result(job));
    this.took = h("td", { class: "wide-only" }, took(job));
    this.node.replaceChildren(
      h("th", { scope: "row" }, link(["job", job.id], job.id.slice(0, 8), {}, { class: "code" })),
      this.me.admin && h("td", {}, job.owner),
      h("td", {}, stateChip(job)),
      h("td", {}, formatTime(job.created_at)),
      this.took,
      h("td", {}, subject(job)),
      this.result,
      h("td", { class: "actions-cell" }, job.state === "running" && !job.cancelling && cancelButton(job)),
    );
  }
}

/** Return what a job fetches: its first item, and the number of the others. */
function subject({ items: [first], item_count: count }) {
  if (!first) return "";
  const more = count > 1 ? ` and ${count - 1} more` : "";
  const title = `${first.source}: ${first.item}`;
  return [h("span", { class: "clip", title }, title), more && h("span", { class: "dim" }, more)];
}

const stateChip = (job) => chip(job.cancelling ? "cancelling" : job.state, CHIPS[job.state]);

function took(job) {
  const end = job.ended_at ? new Date(job.ended_at) : new Date();
  return formatSeconds(Math.max(0, (end - new Date(job.created_at)) / 1000));
}

/** Return what there is to tell of a job: progress, the sum of its files, or the reason of its end. */
function result(job) {
  if (job.state === "running") return progress(job);
  if (job.problem) return h("span", { class: "clip", title: job.problem.detail }, sentence(job.problem.detail));
  const bytes = job.receipts.reduce((sum, receipt) => sum + receipt.size, 0);
  const [first, ...others] = job.receipts.map((receipt) => receipt.path);
  const more = others.length ? ` and ${others.length} more` : "";
  return `${first ?? "nothing"}${more}, ${formatSize(bytes)}`;
}

function progress(job) {
  if (!job.progress) return h("span", { class: "dim" }, "begins");
  const { items } = job.progress;
  // The next item begins with a receipt, and has no progress before its first bytes.
  const item = Math.min(items, Math.max(job.progress.item, job.receipts.length + 1));
  const { bytes, total } = item === job.progress.item ? job.progress : { bytes: 0, total: null };
  const amount = total ? `${formatSize(bytes)} of ${formatSize(total)}` : formatSize(bytes);
  const part = total ? Math.min(1, bytes / total) : 0;
  const bar = h("progress", { "aria-label": `Progress of job ${job.id.slice(0, 8)}`, max: items });
  if (total || items > 1) bar.value = item - 1 + part;
  const text = `item ${item} of ${items}${bytes ? `, ${amount}` : ""}`;
  return h("span", { class: "row" }, bar, h("span", { class: "dim" }, text));
}

function cancelButton(job, done) {
  const cancel = button(
    "Cancel",
    async () => {
      const text = "Its query ends, and the files that it has fetched are deleted.";
      if (!(await confirm("Cancel the job?", text, "Cancel the job", { back: "Let it run" }))) return;
      await busy(cancel, async () => {
        const changed = await api("DELETE", at("jobs", job.id));
        say(changed.state === "running" ? "The job is being cancelled." : `The job has ended: ${changed.state}.`);
        done?.(changed);
      });
    },
    { "aria-label": `Cancel job ${job.id.slice(0, 8)}` },
  );
  return cancel;
}

export async function jobPage({ id, me, signal }) {
  const body = h("div", {});
  const actions = h("div", { class: "row" });
  const problem = h("div", { "aria-live": "polite" });
  let state = null;
  const show = (job) => {
    const now = job.cancelling ? "cancelling" : job.state;
    if (now !== state) {
      state = now;
      actions.replaceChildren(now === "running" ? cancelButton(job, show) : "");
      problem.replaceChildren(job.problem ? errorBox({ message: job.problem.detail }) : "");
    }
    body.replaceChildren(
      h(
        "p",
        { class: "row facts dim" },
        stateChip(job),
        h("span", {}, "started ", formatTime(job.created_at)),
        h("span", {}, `${job.ended_at ? "took" : "for"} ${took(job)}`),
        h("span", {}, "of ", job.owner),
        h("span", {}, "workspace ", h("span", { class: "code" }, job.workspace.slice(0, 8))),
      ),
      subjects(job),
      job.state === "running" ? progress(job) : "",
      files(job, job.owner === me.id),
    );
  };
  const job = await api("GET", at("jobs", id), { signal });
  show(job);
  const run = async () => {
    try {
      await follow(id, signal, show);
    } catch (error) {
      if (error.name !== "AbortError" && !signal.aborted) problem.replaceChildren(errorBox(error, run));
    }
  };
  if (job.state === "running") run();
  return [
    crumbs(link(["jobs"], "Jobs")),
    h("div", { class: "row spread" }, h("h1", { tabindex: "-1" }, `Job ${id.slice(0, 8)}`), actions),
    problem,
    body,
  ];
}

/** Return the items of a job; each is text, as it may be a query of many lines. */
function subjects(job) {
  const entry = ({ source, item, format }) =>
    h("li", {}, `${source}: `, h("span", { class: "code" }, item), format && ` as ${format}`);
  const hidden = job.item_count - job.items.length;
  const list = h("ul", { class: "plain" }, job.items.map(entry), hidden > 0 && h("li", {}, `and ${hidden} more`));
  return job.items.length ? h("section", {}, h("h2", {}, "Fetches"), list) : "";
}

/** Return the files of a job; others than its owner cannot download them. */
function files(job, isOwn) {
  if (!job.receipts.length) return "";
  const kept = isOwn && job.state === "finished";
  const line = (receipt) => {
    const get = button("Download", () => busy(get, () => downloadFile(job.workspace, receipt.path)), {
      "aria-label": `Download ${receipt.path}`,
    });
    return h(
      "tr",
      {},
      h("th", { scope: "row" }, receipt.path, " ", receipt.truncated && chip("cut at the limit of rows", "paused")),
      h("td", {}, receipt.source),
      h("td", { class: "number" }, receipt.rows === null ? "" : formatNumber(receipt.rows)),
      h("td", { class: "number" }, formatSize(receipt.size)),
      h("td", { class: "actions-cell" }, kept && get),
    );
  };
  const rows = job.receipts.map(line);
  const shown = table("Files", ["File", "Source", "Rows", "Size", ""], rows, { numbers: [2, 3] });
  return h("section", {}, h("h2", {}, "Files"), region("Files", shown));
}
