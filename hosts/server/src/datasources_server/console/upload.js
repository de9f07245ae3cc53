// Uploads of files into a source.

import { at, upload } from "./api.js";
import { button, confirm, errorBox, formatSize, h, say, sentence } from "./dom.js";

/** Return a button that uploads files into a folder of a source; `reload` shows the folder anew. */
export function uploadButton(source, folder, reload) {
  const problem = h("div", { "aria-live": "assertive" });
  const input = h("input", { type: "file", multiple: true, hidden: true, "aria-label": "Files to upload" });
  const control = button("Upload", () => input.click());
  input.addEventListener("change", async () => {
    const files = [...input.files];
    input.value = ""; // so that the same file can be chosen again
    problem.replaceChildren();
    control.disabled = true;
    try {
      let sent = 0;
      for (; files.length; files.shift()) sent += await send(source, `${folder}${files[0].name}`, files[0]);
      if (sent) reload();
    } catch (error) {
      const names = files.map((file) => file.name).join(", ");
      const message = `${sentence(error.message)} Not uploaded: ${names}`;
      // The page may be another one meanwhile.
      if (problem.isConnected) problem.replaceChildren(errorBox({ ...error, message }));
      else say(message, "error");
    } finally {
      control.disabled = false;
    }
  });
  return { control: h("span", {}, control, input), problem };
}

/** Upload a file; returns true if it is stored, false if somebody has decided against it. */
async function send(source, item, file) {
  const route = `${at("sources", source.id)}/upload`;
  try {
    await upload(route, { item }, file, { "If-None-Match": "*" });
  } catch (error) {
    if (error.name === "AbortError") return false;
    if (error.slug !== "item-exists") throw error;
    const text = `${item} is in the source already. The file of ${formatSize(file.size)} takes its place.`;
    if (!(await confirm("Replace the item?", text, "Replace", { run: () => upload(route, { item }, file) }))) {
      return false;
    }
  }
  say(`Uploaded ${item}.`);
  return true;
}
