// The draw page: strokes on paper, or a photo → POST /read → what the network says, as you draw.

const WIDTH = 600, HEIGHT = 450; // of the paper, in the units of strokes, on every screen
const PEN = 10; // its width, in the same units
const SENT_PEN = 6, SENT_SIDE = 240; // pixels: the widest stroke and the longest side of a drawing that is sent
const STEP = 10; // of the pen, per arrow key

const element = Object.fromEntries([...document.querySelectorAll("[id]")].map((found) => [found.id, found]));
const context = element.paper.getContext("2d");
let strokes = []; // lists of points [x, y]
let photo = null; // or {blob, bitmap}; bitmap: null where the browser cannot show it
let covered = null; // the photo under a drawing; undoing the drawing brings it back
let drawing = null; // {id, stroke}: the stroke that a mouse, pen or finger is drawing, and its pointer
let answer = { marks: [] }; // the last one, and where its picture was on the paper
let chosen = 0; // the mark whose probabilities are shown
let pen = null; // {x, y, down}, moved by keys
let network = { vocab: [] }; // that answers
let asking = false, askAgain = false;
let pictures = 0; // opened so far, so that a slow one does not replace a later one

// Drawing

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name);
}

function drawStrokes(on, ink) {
  on.strokeStyle = on.fillStyle = ink;
  on.lineWidth = PEN;
  on.lineCap = on.lineJoin = "round";
  for (const stroke of strokes) {
    on.beginPath();
    on.moveTo(...stroke[0]);
    for (const point of stroke) on.lineTo(...point);
    on.stroke();
  }
}

function photoPlace() { // on the paper: as large as possible, in the middle
  const { width, height } = photo.bitmap;
  const scale = Math.min(WIDTH / width, HEIGHT / height);
  return { scale, x: (WIDTH - width * scale) / 2, y: (HEIGHT - height * scale) / 2 };
}

function redraw() {
  const sharp = element.paper.clientWidth * devicePixelRatio;
  if (element.paper.width !== Math.round(sharp)) {
    element.paper.width = Math.round(sharp);
    element.paper.height = Math.round(sharp * HEIGHT / WIDTH);
  }
  context.setTransform(element.paper.width / WIDTH, 0, 0, element.paper.height / HEIGHT, 0, 0);
  context.clearRect(0, 0, WIDTH, HEIGHT);
  if (photo?.bitmap) {
    const { scale, x, y } = photoPlace();
    context.drawImage(photo.bitmap, x, y, photo.bitmap.width * scale, photo.bitmap.height * scale);
  }
  drawStrokes(context, colour("--ink"));
  if (answer.place && (photo || answer.marks.length > 1)) answer.marks.forEach(drawBox);
  if (pen && document.activeElement === element.paper) drawPen();
  element.hint.hidden = !isEmpty() || pen !== null;
  enable(element.undo, strokes.length > 0);
  enable(element.clear, !isEmpty());
  element.inks.hidden = !photo;
}

function enable(button, on) {
  if (!on && document.activeElement === button) element.paper.focus(); // or the keyboard would have no focus
  button.disabled = !on;
}

function drawBox(mark, i) {
  const { scale, x, y } = answer.place;
  const [left, top, right, bottom] = mark.box.map((side) => side * scale);
  const room = 5;
  context.lineWidth = i === chosen ? 3 : 1.5;
  context.strokeStyle = colour(mark.digit === null ? "--two" : "--one");
  context.strokeRect(x + left - room, y + top - room, right - left + 2 * room, bottom - top + 2 * room);
}

function drawPen() {
  context.lineWidth = 2;
  context.strokeStyle = colour(pen.down ? "--two" : "--one");
  context.beginPath();
  context.arc(pen.x, pen.y, PEN, 0, 2 * Math.PI);
  context.stroke();
}

function isEmpty() {
  return !photo && !strokes.length;
}

function changed() {
  element.trouble.textContent = "";
  redraw();
  ask();
}

function lift() { // mouse, pen or finger
  drawing = null;
  if (pen?.down) putDown(false);
}

function clear() {
  lift();
  strokes = [];
  photo = covered = null;
  pictures += 1;
  element.ink.value = "auto";
  say({ text: "", marks: [] });
  changed();
}

function begin(point) { // a stroke; on a photo it starts a new drawing
  const before = photo;
  if (photo) clear();
  covered = before ?? covered;
  pictures += 1;
  strokes.push([point]);
  return strokes.at(-1);
}

// Mouse, pen and finger

function place(event) {
  const box = element.paper.getBoundingClientRect();
  return [(event.clientX - box.left) * WIDTH / box.width, (event.clientY - box.top) * HEIGHT / box.height];
}

element.paper.addEventListener("pointerdown", (event) => {
  if (drawing || event.button !== 0) return; // a palm next to the pen draws nothing
  element.paper.setPointerCapture(event.pointerId);
  lift();
  pen = null;
  const stroke = begin(place(event));
  drawing = { id: event.pointerId, stroke };
  changed();
});
element.paper.addEventListener("pointermove", (event) => {
  if (drawing?.id !== event.pointerId) return;
  for (const step of event.getCoalescedEvents?.() ?? []) drawing.stroke.push(place(step));
  drawing.stroke.push(place(event));
  changed();
});
element.paper.addEventListener("lostpointercapture", (event) => { // after both up and cancel
  if (drawing?.id === event.pointerId) drawing = null;
});

// Keys

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function putDown(down) {
  pen.down = down;
  element.pen.textContent = down ? "pen down" : "pen up";
}

element.paper.addEventListener("keydown", (event) => {
  if (event.key !== " " && !(event.key in ARROWS)) return;
  event.preventDefault();
  pen ??= { x: WIDTH / 2, y: HEIGHT / 3, down: false };
  if (event.key === " " && !event.repeat) {
    if (!pen.down) begin([pen.x, pen.y]);
    putDown(!pen.down);
  } else if (event.key !== " ") {
    const [x, y] = ARROWS[event.key];
    pen.x = Math.min(Math.max(pen.x + x * STEP, PEN), WIDTH - PEN);
    pen.y = Math.min(Math.max(pen.y + y * STEP, PEN), HEIGHT - PEN);
    if (pen.down) strokes.at(-1).push([pen.x, pen.y]);
  }
  if (pen.down) changed();
  else redraw();
});
for (const event of ["focus", "blur"]) element.paper.addEventListener(event, redraw);
addEventListener("keydown", (event) => {
  if (event.key === "Escape") clear();
  if (event.key === "z" && (event.ctrlKey || event.metaKey)) undo();
});

// Buttons

function undo() {
  if (!strokes.length) return;
  lift();
  strokes.pop();
  if (!strokes.length) [photo, covered] = [covered, null];
  changed();
}

element.undo.addEventListener("click", undo);
element.clear.addEventListener("click", clear);
element.open.addEventListener("click", () => element.file.click());
element.ink.addEventListener("change", changed);
element.file.addEventListener("change", () => {
  if (element.file.files[0]) show(element.file.files[0]);
  element.file.value = ""; // so that the same file can be opened again
});

// Photos: opened, pasted, dropped

async function show(blob) {
  if (blob.size > network.max_bytes) {
    element.trouble.textContent =
      `${blob.name} has ${Math.round(blob.size / 1e6)} MB; the most is ${network.max_bytes / 1e6} MB.`;
    return;
  }
  const number = pictures += 1;
  const bitmap = await createImageBitmap(blob).catch(() => null); // the server may still be able to read it
  if (number !== pictures) return; // another picture has been opened since
  clear();
  photo = { blob, bitmap };
  say({ text: "", marks: [] });
  changed();
}

addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files].find(({ type }) => type.startsWith("image/"));
  if (file) show(file);
  else element.trouble.textContent = "There is no picture to paste: copy one first.";
});
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  if (event.dataTransfer.files[0]) show(event.dataTransfer.files[0]);
  else element.trouble.textContent = "That was no file: drop a picture from a folder, or copy it and paste it.";
});

// Asking

function picture() { // to send, and where it is on the paper
  if (photo) return { blob: photo.blob, ink: element.ink.value, place: photo.bitmap && photoPlace() };
  const points = strokes.flat().map(([x, y]) => [Math.min(Math.max(x, 0), WIDTH), Math.min(Math.max(y, 0), HEIGHT)]);
  const room = 2 * PEN;
  const [xs, ys] = [0, 1].map((i) => points.map((point) => point[i]));
  const range = (values, end) => values.length
    ? [values.reduce((a, b) => Math.min(a, b)) - room, values.reduce((a, b) => Math.max(a, b)) + room] : [0, end];
  const [[left, right], [top, bottom]] = [range(xs, WIDTH), range(ys, HEIGHT)];
  const scale = Math.min(SENT_PEN / PEN, SENT_SIDE / Math.max(right - left, bottom - top));
  const least = 80; // pixels per side: a smaller picture is taken for one cut-out digit
  const [w, h] = [right - left, bottom - top].map((side) => Math.max(Math.ceil(side * scale), least));
  const on = new OffscreenCanvas(w, h).getContext("2d", { willReadFrequently: true });
  const x = (left + right) / 2 - w / scale / 2, y = (top + bottom) / 2 - h / scale / 2;
  on.fillStyle = "#fff";
  on.fillRect(0, 0, w, h);
  on.setTransform(scale, 0, 0, scale, -x * scale, -y * scale);
  on.rect(0, 0, WIDTH, HEIGHT);
  on.clip(); // what was drawn outside the paper must not show
  drawStrokes(on, "#000");
  return { blob: greymap(on.getImageData(0, 0, w, h)), ink: "drawing", place: { scale: 1 / scale, x, y } };
}

function greymap({ data, width, height }) { // as a PGM, which is faster to write and read than a PNG
  const grey = new Uint8Array(width * height);
  for (let i = 0; i < grey.length; i++) grey[i] = data[4 * i];
  return new Blob([`P5 ${width} ${height} 255\n`, grey]);
}

async function ask() { // one question at a time; the next one is about the latest strokes
  if (asking) {
    askAgain = true;
    return;
  }
  asking = element.answer.ariaBusy = true;
  do {
    askAgain = false;
    const about = photo, start = performance.now();
    let answered, place = null;
    try {
      const sent = picture();
      place = sent.place;
      answered = await reply(`read?ink=${sent.ink}`, { method: "POST", body: sent.blob });
    } catch (error) { // of the browser: the drawing stays and can be sent again
      answered = { error: `The drawing could not be sent: ${error.message}` };
    }
    if (about !== photo) askAgain = true; // another picture has been opened since
    else say({ ...answered, place, took: performance.now() - start });
  } while (askAgain);
  asking = element.answer.ariaBusy = false;
}

async function reply(path, request) {
  let response;
  try {
    response = await fetch(path, request);
  } catch {
    return { error: "No answer: has digitfast draw been stopped? Start it again and reload this page." };
  }
  return response.json().catch(() => ({ error: `No answer: ${response.status} ${response.statusText}.` }));
}

// Answers

function say(next) {
  if (next.error) element.trouble.textContent = next.error;
  answer = next.error ? { text: "", marks: [] } : next;
  chosen = Math.min(chosen, Math.max(answer.marks.length - 1, 0));
  element.answer.textContent = answer.text;
  element.answer.classList.toggle("words", ["unsure", "no digit"].includes(answer.text));
  element.answer.classList.toggle("long", answer.text.length > 12);
  element.answer.classList.toggle("empty", isEmpty());
  element.how.textContent = next.error ? "" : how();
  showMarks();
  showChances();
  offerToKeep();
  redraw();
}

function percent(probability) {
  const value = 100 * probability;
  return `${value.toFixed(value > 99 && value < 99.95 ? 1 : 0)} %`;
}

function how() {
  if (answer.took === undefined) return photo ? "reading…" : "";
  const time = `${Math.round(answer.took)} ms`;
  if (!answer.marks.length) return isEmpty() ? "the paper is empty" : `no digit found · ${time}`;
  if (answer.marks.length > 1) {
    const unsure = answer.marks.filter((mark) => mark.digit === null).length;
    return `${answer.marks.length} marks${unsure ? `, ${unsure} of them unsure (?)` : ""} · ${time}`;
  }
  const [mark] = answer.marks;
  if (mark.answer === "no digit") return `most like ${mark.guess}, but probably no digit · ${time}`;
  if (mark.answer === "unsure") return `perhaps ${mark.guess}: ${percent(mark.probability)} · ${time}`;
  return `${percent(mark.probability)} sure · ${time}`;
}

function showMarks() {
  while (element.marks.children.length > answer.marks.length) element.marks.lastChild.remove();
  answer.marks.forEach((mark, i) => {
    const tile = element.marks.children[i] ?? newTile(i);
    drawPixels(tile.querySelector("canvas"), mark.pixels);
    tile.querySelector("b").textContent = mark.digit ?? "?";
    tile.disabled = answer.marks.length === 1; // nothing to choose
    tile.setAttribute("aria-pressed", i === chosen);
    tile.setAttribute("aria-label", `mark ${i + 1}: ${mark.answer}`);
  });
  element.marks.classList.toggle("one", answer.marks.length === 1);
}

function newTile(i) {
  const tile = document.createElement("button");
  tile.type = "button";
  tile.append(document.createElement("canvas"), document.createElement("b"));
  tile.addEventListener("click", () => {
    chosen = i;
    showMarks();
    showChances();
    offerToKeep();
    redraw();
  });
  element.marks.append(tile);
  return tile;
}

function drawPixels(canvas, base64) { // light ink on dark, as the network sees it
  const grey = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const side = canvas.width = canvas.height = Math.sqrt(grey.length);
  const image = new ImageData(side, side);
  grey.forEach((value, i) => image.data.set([value, value, value, 255], 4 * i));
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function showChances() {
  const mark = answer.marks[chosen];
  [...network.vocab, "no digit"].forEach((label, i) => {
    const row = element.chances.children[i] ?? newRow();
    row.firstChild.textContent = label;
    const probability = !mark ? 0 : i < network.vocab.length ? mark.probabilities[i] : mark.no_digit;
    row.querySelector("i").style.width = `${100 * probability}%`;
    row.lastChild.textContent = mark ? percent(probability) : "";
    row.classList.toggle("best", Boolean(mark) && label === (mark.digit ?? mark.answer));
  });
}

function newRow() {
  const row = document.createElement("li"), bar = document.createElement("span");
  bar.append(document.createElement("i"));
  row.append(document.createElement("b"), bar, document.createElement("span"));
  bar.className = "bar";
  row.lastChild.className = "percent";
  element.chances.append(row);
  return row;
}

// Putting answers right: only where the page was started with a folder to keep drawings in

const keptMarks = []; // those that are kept, the last one last

function offerToKeep() {
  const mark = answer.marks[chosen];
  element.keeping.hidden = !network.keep || !mark;
  element.truth.value = "";
  element.truth.disabled = keptMarks.includes(mark);
}

element.truth.addEventListener("change", async () => {
  const label = element.truth.value, mark = answer.marks[chosen];
  if (!label || !mark) return;
  const said = await reply(`keep?label=${encodeURIComponent(label)}&box=${mark.box}`,
    { method: "POST", body: picture().blob });
  element.kept.textContent = said.error ?? `Kept as ${label}: ${said.file}`;
  if (said.error) return;
  keptMarks.push(mark); // a drawing is kept once
  element.truth.disabled = true;
  element.back.hidden = false;
});
element.back.addEventListener("click", async () => {
  const said = await reply("keep", { method: "DELETE" });
  element.kept.textContent = said.error ?? (said.file ? `Taken back: ${said.file}` : "There is no more to take back.");
  element.back.hidden = !said.left;
  keptMarks.pop();
  offerToKeep();
});

// Start

new ResizeObserver(redraw).observe(element.paper);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
network = { vocab: [], ...await reply("network") };
element.back.hidden = true;
for (const label of ["…", ...network.vocab]) element.truth.add(new Option(label, label === "…" ? "" : label));
if (network.keep) element.keeps.textContent = `only drawings that you put right are kept, in ${network.keep}`;
element.network.textContent = network.name ? `The network is ${network.name}.` : "";
changed();
