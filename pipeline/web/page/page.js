"use strict";

const get = (id) => document.getElementById(id);
const form = get("form"), file = get("file"), drop = get("drop"), canvas = get("canvas");
let picture = null; // the last one, so that another task needs no new choice
let asked = 0; // only the answer to the newest question is shown

// Far apart around the colour circle, light enough for black text.
const colour = (id) => `hsl(${(id * 137.5) % 360} 90% 70%)`;
const chosen = () => form.elements.task.value;
const headers = () => (get("token").value ? { Authorization: `Bearer ${get("token").value}` } : {});

function say(text, bad = false) {
  get("status").textContent = text;
  get("status").className = bad ? "bad" : "";
}

function address() {
  const task = chosen(), query = new URLSearchParams();
  if (task !== "classify") query.set("confidence", get("confidence").value);
  if (get("classes").value.trim()) query.set("classes", get("classes").value);
  return `/v1/${task}?${query}`;
}

async function ask() {
  if (!picture) return;
  const number = ++asked;
  say("Looking …");
  try {
    const body = new FormData();
    body.append("image", picture);
    const response = await fetch(address(), { method: "POST", body, headers: headers() });
    const answer = await response.json();
    if (number !== asked) return;
    if (!response.ok) {
      get("result").hidden = true;
      if (response.status === 401) {
        get("token-row").hidden = false;
        get("token").focus();
      }
      say([answer.detail, answer.hint].filter(Boolean).join(" – "), true);
      return;
    }
    await show(answer);
  } catch (error) {
    if (number === asked) say(`The server cannot be reached: ${error.message}`, true);
  }
}

function rowsOf(answer) {
  if (answer.task === "tag") {
    return Object.entries(answer.tags.auto).map(([label, percent], id) => ({ label, class_id: id, score: `${percent} %` }));
  }
  const found = answer.detections || answer.classes || [answer.object].filter(Boolean);
  // Objects of a label share a colour; classes are told apart by their order.
  return found.map((one, id) => ({ ...one, class_id: one.box_xyxy ? one.class_id : id, score: `${(100 * one.confidence).toFixed(1)} %` }));
}

async function show(answer) {
  const rows = rowsOf(answer);
  const [one, more] = { tag: ["tag", "tags"], classify: ["class", "classes"] }[answer.task] || ["object", "objects"];
  const what = rows.length ? `${rows.length} ${rows.length === 1 ? one : more}` : "nothing found";
  const took = answer.latency_ms.decode + answer.latency_ms.inference;
  say(`${what}, ${took.toFixed(0)} ms, ${answer.model} on ${answer.provider}`);
  get("caption").textContent = `${answer.width} x ${answer.height} pixels: ${what}`;
  get("rows").replaceChildren(...rows.map((row) => {
    const line = document.createElement("tr");
    const swatch = document.createElement("span");
    swatch.className = "swatch";
    swatch.style.background = colour(row.class_id);
    const cells = [row.label, row.score, row.box_xyxy ? row.box_xyxy.map(Math.round).join(", ") : ""];
    line.append(...cells.map((text) => {
      const cell = document.createElement("td");
      cell.textContent = text;
      return cell;
    }));
    line.firstChild.prepend(swatch);
    return line;
  }));
  get("table").classList.toggle("boxless", !rows.some((row) => row.box_xyxy));
  get("json").textContent = JSON.stringify(answer, null, 2);
  canvas.setAttribute("aria-label", `The picture with ${what}: ${rows.map((row) => row.label).join(", ")}`);
  get("result").hidden = false;
  await draw(answer, rows);
}

async function draw(answer, rows) {
  // As the server sees it: upright.
  const bitmap = await createImageBitmap(picture, { imageOrientation: "from-image" });
  canvas.width = answer.width;
  canvas.height = answer.height;
  const pen = canvas.getContext("2d");
  pen.drawImage(bitmap, 0, 0, answer.width, answer.height);
  bitmap.close();
  // Sizes are meant on the screen, where the picture may be much smaller than it is.
  const shown = Math.min(1, canvas.parentElement.clientWidth / answer.width || 1);
  const size = 14 / shown, line = 2.5 / shown;
  pen.font = `600 ${size}px system-ui, sans-serif`;
  pen.textBaseline = "top";
  pen.lineWidth = line;
  let y = 0.5 * size;
  for (const row of rows) {
    const text = `${row.label} ${row.score}`, wide = pen.measureText(text).width + 0.6 * size;
    pen.fillStyle = pen.strokeStyle = colour(row.class_id);
    let left = 0.5 * size, top = y;
    if (row.box_xyxy) {
      const [x1, y1, x2, y2] = row.box_xyxy;
      pen.strokeRect(x1, y1, x2 - x1, y2 - y1);
      left = Math.max(0, Math.min(x1, answer.width - wide));
      top = y1 >= 1.4 * size ? y1 - 1.4 * size : y1;
    }
    pen.fillRect(left, top, wide, 1.4 * size);
    pen.fillStyle = "#000";
    pen.fillText(text, left + 0.3 * size, top + 0.2 * size);
    y += 1.6 * size;
  }
}

function take(files) {
  const found = [...files].find((one) => one.type.startsWith("image/"));
  if (!found) return say("That is no picture.", true);
  picture = found;
  ask();
}

file.addEventListener("change", () => take(file.files));
form.addEventListener("submit", (event) => { event.preventDefault(); ask(); });
form.addEventListener("change", (event) => { if (event.target !== file) ask(); });
get("confidence").addEventListener("input", () => { get("shown").textContent = (+get("confidence").value).toFixed(2); });
for (const kind of ["dragenter", "dragover"]) {
  drop.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.add("over"); });
}
drop.addEventListener("dragleave", () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => { event.preventDefault(); drop.classList.remove("over"); take(event.dataTransfer.files); });
document.addEventListener("paste", (event) => { if (event.clipboardData.files.length) take(event.clipboardData.files); });
form.addEventListener("change", () => { get("confidence-row").hidden = chosen() === "classify"; });

get("origin").textContent = location.origin;
fetch("/healthz").then((response) => response.json()).then(({ models, version }) => {
  const known = Object.entries(models).map(([kind, one]) => `${kind} ${one.name} (${one.classes} classes) on ${one.provider}`);
  get("models").textContent = `What is in a picture. Version ${version}: ${known.join("; ")}.`;
  const able = { detect: models.detector, localize: models.detector, classify: models.classifier, tag: true };
  for (const input of form.elements.task) input.disabled = !able[input.value];
  if (!models.detector) form.elements.task.value = "classify";
}).catch(() => say("The server cannot be reached.", true));
