// Warnings before something is lost: what was typed into a form, or a file that is being sent.

import { confirm } from "./dom.js";

const forms = new Set(); // functions that return true while their form has changes
const transfers = new Set(); // what is being sent or received by the page

/** Warn of leaving a page while `isChanged` returns true, until `signal` tells that it was left. */
export function guardForm(isChanged, signal) {
  forms.add(isChanged);
  signal.addEventListener("abort", () => forms.delete(isChanged));
}

/** Warn of closing the tab until the function that is returned is called. */
export function guardTransfer() {
  const transfer = {};
  transfers.add(transfer);
  return () => transfers.delete(transfer);
}

const hasChanges = () => [...forms].some((isChanged) => isChanged());

/** Return true if the page may be left; asks if a form has changes. */
export async function mayLeave() {
  if (!hasChanges()) return true;
  const text = "What you have changed in the form is not saved.";
  return confirm("Leave without saving?", text, "Leave", { back: "Stay" });
}

window.addEventListener("beforeunload", (event) => {
  if (hasChanges() || transfers.size) event.preventDefault();
});
