// Lists: pages with buttons between them; and a list of any length, of which the rows that are in
// view are in the page, while others are loaded when they come into view.

import { button, errorBox, h } from "./dom.js";

const ROW = 38; // pixels, as in the style sheet
const MARGIN = 10; // rows above and below the view that are in the page
const AHEAD = 200; // rows below the view that are loaded
const PAGES_KEPT = 40; // others are loaded again when they come into view
const MAX_HEIGHT = 8_000_000; // pixels; browsers draw nothing beyond about 17 million

/** Rows are anchored in the page: `list.node` scrolls with the window. */
export class LongList {
  /**
   * @param load Returns `{items, next_cursor}` for a cursor, null for the first page.
   * @param row Returns the cells of an item.
   * @param changed Is called with the number of rows, and true if these are all.
   */
  constructor({ label, columns, load, row, changed, signal }) {
    Object.assign(this, { load, row, changed, signal });
    this.clear();
    this.space = h("div", { class: "space", role: "rowgroup" });
    this.problem = h("div", {});
    const head = h(
      "div",
      { class: "line head", role: "row" },
      columns.map((name) => h("span", { role: "columnheader" }, name)),
    );
    this.table = h(
      "div",
      { class: "long", role: "table", "aria-label": label, "aria-rowcount": "-1" },
      h("div", { role: "rowgroup" }, head),
      this.space,
    );
    this.node = h("div", {}, this.table, this.problem);
    const draw = () => this.draw();
    window.addEventListener("scroll", draw, { passive: true, signal });
    window.addEventListener("resize", draw, { passive: true, signal });
    this.space.addEventListener("keydown", (event) => this.move(event));
  }

  clear() {
    this.pages = new Map(); // by number: items
    this.cursors = [null]; // by number of the page
    this.starts = [0]; // by number of the page: rows before it; the last is the number of rows
    this.complete = false;
    this.loading = new Set();
    this.shown = new Map(); // by number of the row: its element
    this.anchor = { count: 0, top: 0 }; // of the view before: the number of rows, and its place
  }

  get count() {
    return this.starts.at(-1);
  }

  /** Load the first page; rejects if that fails. */
  async begin() {
    await this.fetch(0);
    // The list may not be in the page yet, and have no place to measure.
    requestAnimationFrame(() => this.draw());
  }

  async fetch(number) {
    if (this.loading.has(number)) return;
    const { loading } = this;
    loading.add(number);
    try {
      let page = await this.load(this.cursors[number]);
      // A page may be empty although others follow it.
      while (!page.items.length && page.next_cursor) page = await this.load(page.next_cursor);
      if (loading !== this.loading) return; // the list was begun anew meanwhile
      const known = number < this.starts.length - 1;
      this.pages.set(number, page.items);
      if (!known) {
        this.starts.push(this.count + page.items.length);
        if (page.next_cursor) this.cursors.push(page.next_cursor);
        else this.complete = true;
      }
      this.changed(this.count, this.complete);
    } finally {
      loading.delete(number);
    }
  }

  pageOf(index) {
    let [low, high] = [0, this.starts.length - 1];
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (this.starts[middle] <= index) low = middle;
      else high = middle;
    }
    return low;
  }

  /**
   * Return the view: pixels above it in the page, pixels of rows above it, first and last row.
   *
   * Beyond `MAX_HEIGHT`, a pixel of the page stands for several of rows. When rows are added there,
   * the page is scrolled so that the same rows stay in view.
   */
  view() {
    const full = this.count * ROW;
    const height = Math.min(full, MAX_HEIGHT);
    const scale = full > height ? (full - innerHeight) / (height - innerHeight) : 1;
    this.space.style.height = `${height}px`;
    if (scale > 1 && this.count !== this.anchor.count && this.anchor.top > 0) {
      window.scrollBy(0, this.anchor.top / scale + this.space.getBoundingClientRect().top);
    }
    const offset = Math.max(0, Math.min(-this.space.getBoundingClientRect().top, height - innerHeight));
    const top = offset * scale;
    this.anchor = { count: this.count, top };
    const first = Math.max(0, Math.floor(top / ROW) - MARGIN);
    const last = Math.min(this.count, Math.ceil((top + innerHeight) / ROW) + MARGIN);
    return { offset, top, first, last };
  }

  draw() {
    if (this.signal.aborted) return;
    const { offset, top, first, last } = this.view();
    for (const [index, node] of this.shown) {
      if ((index < first || index >= last) && !node.contains(document.activeElement)) {
        node.remove();
        this.shown.delete(index);
      }
    }
    const missing = new Set();
    for (let index = first; index < last; index++) {
      const number = this.pageOf(index);
      const items = this.pages.get(number);
      if (!items) missing.add(number);
      const item = items?.[index - this.starts[number]];
      let node = this.shown.get(index);
      if (!node || (item && "empty" in node.dataset)) {
        node?.remove();
        node = this.line(index, item);
        this.shown.set(index, node);
        this.insert(index, node);
      }
    }
    for (const [index, node] of this.shown) node.style.transform = `translateY(${offset + index * ROW - top}px)`;
    if (!this.complete && last + AHEAD >= this.count) missing.add(this.cursors.length - 1);
    for (const number of missing) this.loadMore(number);
    this.forget(this.pageOf(first));
  }

  /** Put a row where readers of the page's order find it. */
  insert(index, node) {
    const after = [...this.space.children].find((other) => Number(other.dataset.index) > index);
    this.space.insertBefore(node, after ?? null);
  }

  line(index, item) {
    const cells = item ? this.row(item) : ["…"];
    const properties = {
      class: "line",
      role: "row",
      "aria-rowindex": index + 2,
      "data-index": index,
      "data-empty": !item,
    };
    return h(
      "div",
      properties,
      cells.map((cell) => h("span", { role: "cell" }, cell)),
    );
  }

  async loadMore(number) {
    if (this.loading.has(number) || this.failed) return;
    try {
      await this.fetch(number);
      this.draw();
    } catch (error) {
      if (error.name === "AbortError" || this.signal.aborted) return;
      this.failed = true; // until somebody tries again
      const retry = () => {
        this.failed = false;
        this.problem.replaceChildren();
        // Cursors are valid for an hour.
        if (error.slug === "cursor-invalid") this.restart();
        else this.loadMore(number);
      };
      this.problem.replaceChildren(errorBox(error, retry));
      this.problem.scrollIntoView({ block: "nearest" });
    }
  }

  restart() {
    this.clear();
    this.space.replaceChildren();
    window.scrollTo(0, 0);
    this.loadMore(0);
  }

  forget(center) {
    for (const number of this.pages.keys()) {
      if (Math.abs(number - center) > PAGES_KEPT / 2) this.pages.delete(number);
    }
  }

  /** Move between the links of rows with the arrow keys. */
  move(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const line = event.target.closest(".line");
    if (!step || !line) return;
    event.preventDefault();
    const next = this.shown.get(Number(line.dataset.index) + step);
    next?.querySelector("a")?.focus({ preventScroll: true });
    next?.scrollIntoView({ block: "nearest" });
  }
}

/** Buttons between the pages of a listing with cursors. */
export class Pager {
  /**
   * @param label Names the buttons as a group.
   * @param load Shows the page of the cursor, `pager.cursor`.
   */
  constructor(label, load, [back, forth] = ["Previous", "Next"]) {
    Object.assign(this, { label, load, back, forth });
    this.cursors = [null]; // of the pages up to the one that is shown
    this.buttons = [];
    this.asked = 0; // pages
  }

  /** Return a function that returns true until another page is asked for. */
  ask() {
    const number = ++this.asked;
    return () => number === this.asked;
  }

  get cursor() {
    return this.cursors.at(-1);
  }

  restart() {
    this.cursors = [null];
    return this.load();
  }

  /** Return the buttons; null if there is no other page than this one. */
  controls(next) {
    if (this.cursors.length === 1 && !next) return null;
    const back = () => this.move(0, () => this.cursors.pop());
    const forth = () => this.move(1, () => this.cursors.push(next));
    this.buttons = [
      button(this.back, back, { disabled: this.cursors.length === 1 }),
      button(this.forth, forth, { disabled: !next }),
    ];
    const place = h("span", { class: "dim" }, `Page ${this.cursors.length}`);
    return h("nav", { class: "row pager", "aria-label": this.label }, this.buttons[0], place, this.buttons[1]);
  }

  /** Show another page; the focus goes from a button to that of the new page. */
  async move(number, change) {
    // A second click would be about the page before.
    for (const control of this.buttons) control.disabled = true;
    change();
    await this.load();
    if (document.activeElement !== document.body) return;
    (this.buttons[number].disabled ? this.buttons[1 - number] : this.buttons[number]).focus();
  }
}
