"use strict";

const SIDE = 32; // of the network's input, in pixels
const MAX_PIXELS = 100_000_000; // as in keras_cifar/image/header.py
const LIKELY = 0.5; // the most probable class has at least this, or none is named
const TIMEOUT_MS = 30_000;

const $ = (id) => document.getElementById(id);
const SAMPLES = [...document.querySelectorAll("#samples button")];
const CLASS_NAMES = SAMPLES.map((button) => button.firstElementChild.alt);

/** What went wrong outside this page, and what to do, in words for whoever looks at it. */
class Problem extends Error {}

/** The server wants a token, or another one. */
class TokenNeeded extends Error {}

// ---- The picture: a file of any size -> what the network sees ----

/** Opens an image file to look at. Browsers decode it later, so a huge one may be refused here. */
async function opened(file) {
  if (!file) throw new Problem("There is no picture in it. Save the picture, and choose its file.");
  const { name } = file;
  if (file.size === 0) throw new Problem(`${name} is empty. Choose another file.`);
  const image = new Image();
  image.src = URL.createObjectURL(file);
  try {
    await new Promise((onload, onerror) => Object.assign(image, { onload, onerror }));
  } catch {
    URL.revokeObjectURL(image.src);
    throw new Problem(
      `${name} is no image that this browser can read. Choose a PNG, JPEG, WebP or GIF file.`,
    );
  }
  const { naturalWidth: width, naturalHeight: height } = image;
  if (width * height > MAX_PIXELS) {
    URL.revokeObjectURL(image.src);
    throw new Problem(
      `${name} is too large: ${width} × ${height} pixels, and at most 100 million can be read. ` +
        "Make it smaller first.",
    );
  }
  return image;
}

/** Image file -> ImageData of 32 × 32: middle square, on white, upright, without alpha. */
async function prepared(file) {
  let bitmap;
  try {
    const asStored = { colorSpaceConversion: "none", premultiplyAlpha: "none" };
    bitmap = await createImageBitmap(file, asStored);
  } catch {
    throw new Problem(
      `${file.name} cannot be turned into pixels: it is damaged, or a drawing such as an SVG. ` +
        "Save it as PNG or JPEG, and choose that file.",
    );
  }
  const side = Math.min(bitmap.width, bitmap.height);
  const pixels = resized(squareRows(bitmap, side), side);
  bitmap.close();
  return new ImageData(pixels, SIDE);
}

/** Yields the rows of the middle square, RGBA, in strips: canvases have a largest size. */
function* squareRows(bitmap, side) {
  const left = Math.floor((bitmap.width - side) / 2);
  const top = Math.floor((bitmap.height - side) / 2);
  const height = Math.min(side, 256);
  const canvas = Object.assign(document.createElement("canvas"), { width: side, height });
  const context = canvas.getContext("2d", { alpha: false, willReadFrequently: true });
  context.fillStyle = "white";
  for (let y = 0; y < side; y += height) {
    const rows = Math.min(height, side - y);
    context.fillRect(0, 0, side, height);
    context.drawImage(bitmap, left, top + y, side, rows, 0, 0, side, rows);
    const { data } = context.getImageData(0, 0, side, rows);
    for (let row = 0; row < rows; row++) yield data.subarray(4 * side * row, 4 * side * (row + 1));
  }
}

/**
 * Scales a square to 32 × 32 as tf.image.resize does with antialias=True: bilinear, and where it
 * makes smaller, each pixel is the mean of all that it covers, the nearer the heavier.
 *
 * @param {Iterable<Uint8ClampedArray>} rows from top to bottom, RGBA and opaque.
 * @param {number} side of the square, in pixels.
 * @returns {Uint8ClampedArray} RGBA; storing rounds to the nearest, halves to even, as tf.round.
 */
function resized(rows, side) {
  const windows = triangleWindows(side);
  const sums = new Float64Array(4 * SIDE * SIDE);
  let y = 0;
  for (const row of rows) {
    const narrow = narrowed(row, windows);
    windows.forEach(({ first, weights }, target) => {
      const inside = y >= first && y < first + weights.length;
      if (!inside) return;
      const weight = weights[y - first];
      for (let i = 0; i < 4 * SIDE; i++) sums[4 * SIDE * target + i] += weight * narrow[i];
    });
    y++;
  }
  return new Uint8ClampedArray(sums);
}

/** One row of RGBA -> 32 pixels of it, not yet rounded. */
function narrowed(row, windows) {
  const narrow = new Float64Array(4 * SIDE);
  windows.forEach(({ first, weights }, target) => {
    for (let i = 0; i < weights.length; i++) {
      for (let channel = 0; channel < 4; channel++) {
        narrow[4 * target + channel] += weights[i] * row[4 * (first + i) + channel];
      }
    }
  });
  return narrow;
}

/** For each of 32 pixels: where the source pixels that it is made of begin, and their weights. */
function triangleWindows(size) {
  const scale = size / SIDE;
  const radius = Math.max(scale, 1);
  return Array.from({ length: SIDE }, (_, target) => {
    const centre = (target + 0.5) * scale - 0.5;
    const first = Math.max(0, Math.ceil(centre - radius));
    const last = Math.min(size - 1, Math.floor(centre + radius));
    const raw = Array.from(
      { length: last - first + 1 },
      (_, i) => 1 - Math.abs(first + i - centre) / radius,
    );
    const sum = raw.reduce((a, b) => a + b);
    return { first, weights: raw.map((weight) => weight / sum) };
  });
}

/** ImageData -> "data:image/png;base64,...", lossless: what is shown, and what is sent. */
function pngUrl(pixels) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = SIDE;
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  return canvas.toDataURL("image/png");
}

// ---- The server ----

let token = ""; // in memory only

/** Sends a request and returns the answer's JSON; a Problem says why there is none. */
async function call(path, { body, signal } = {}) {
  const timeout = AbortSignal.timeout(TIMEOUT_MS);
  let response, text;
  try {
    response = await fetch(path, {
      method: body ? "POST" : "GET",
      headers: {
        ...(body && { "Content-Type": "application/json" }),
        ...(token && { Authorization: `Bearer ${token}` }),
      },
      body: body && JSON.stringify(body),
      signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
    });
    text = await response.text();
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Problem(
      timeout.aborted
        ? `The server has not answered for ${TIMEOUT_MS / 1000} seconds. It may be busy.`
        : "The server does not answer. See whether it still runs and can be reached from here.",
    );
  }
  signal?.throwIfAborted();
  if (response.status === 401) throw new TokenNeeded();
  const answer = parsed(text);
  if (!response.ok) throw new Problem(refusal(response, answer));
  if (answer === null) throw new Problem("What the server answered cannot be read: it is no JSON.");
  return answer;
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function refusal(response, answer) {
  const reason = answer?.error ?? response.statusText;
  return `The server answered with error ${response.status}${reason ? `: ${reason}` : "."}`;
}

// ---- The models ----

let models = []; // every version that answers: {name, version, path, text, accuracy}
let model = null; // the one that is asked; the newest of the first name, until another is chosen

/** Asks which models there are; they come and go while the page is open. */
async function readModels(signal) {
  const about = await call("/about.json", { signal });
  const chosen = $("model").value;
  models = Object.entries(about.models).flatMap(([name, { versions, labels }]) =>
    Object.keys(versions)
      .sort((a, b) => b - a)
      .map((version, rank) => described({ name, version, rank, facts: versions[version], labels })),
  );
  if (!models.length) {
    throw new Problem("The server has no model that is ready. It may still be loading one.");
  }
  $("model").replaceChildren(...models.map(({ text, path }) => new Option(text, path)));
  choose(models.find(({ path }) => path === chosen) ?? models[0]);
}

function described({ name, version, rank, facts, labels = {} }) {
  const marks = Object.keys(labels).filter((label) => String(labels[label]) === version);
  const isEvaluated = typeof facts.accuracy === "number";
  return {
    name,
    version,
    // The newest is what a request without a version gets.
    path: rank === 0 ? modelPath(name) : `${modelPath(name)}/versions/${version}`,
    text: `${name}, version ${version}${marks.map((label) => `, ${label}`).join("")}`,
    accuracy: isEvaluated
      ? `Right on ${(100 * facts.accuracy).toFixed(2)}\u00a0% of the ${facts.split} images`
      : "Accuracy not evaluated",
  };
}

function modelPath(name) {
  return `/v1/models/${encodeURIComponent(name)}`;
}

function choose(chosen) {
  model = chosen;
  $("model").value = model.path;
  $("model").hidden = models.length < 2;
  $("about").textContent = (models.length < 2 ? `${model.text}\n` : "") + model.accuracy;
  showPrograms(new URL(`${model.path}:predict`, location.href).href);
}

// ---- One picture, from file to answer ----

let turn = new AbortController(); // aborted when a later picture or model takes its place
let picture = null; // data URL of what the network sees

async function show(file) {
  const signal = nextTurn();
  await attempt(signal, async () => {
    picture = null;
    clear();
    const original = await opened(file);
    const seen = await prepared(file);
    if (signal.aborted) return URL.revokeObjectURL(original.src);
    picture = pngUrl(seen);
    showPictures(original, file.name);
    await ask(signal);
  });
}

async function ask(signal) {
  $("output").ariaBusy = "true";
  say("Looking …", "");
  await readModels(signal);
  const asked = model;
  const start = performance.now();
  // By its version: the newest may be another one by now.
  const path = `${modelPath(asked.name)}/versions/${asked.version}:predict`;
  const instances = [{ b64: picture.split(",")[1] }];
  const answer = await call(path, { body: { signature_name: "image_bytes", instances }, signal });
  const milliseconds = Math.max(1, Math.round(performance.now() - start));
  const probabilities = answer.predictions?.[0]?.probabilities;
  if (probabilities?.length !== CLASS_NAMES.length) {
    throw new Problem("What the server answered holds no ten probabilities. Is this its own page?");
  }
  showAnswer(probabilities);
  $("timing").textContent = `${asked.text}, answered in ${milliseconds} ms`;
}

function nextTurn() {
  turn.abort();
  turn = new AbortController();
  return turn.signal;
}

/** Runs `work`; says what went wrong, unless nobody waits for it any more. */
async function attempt(signal, work) {
  $("problem").hidden = true;
  try {
    await work();
  } catch (error) {
    if (signal.aborted) return;
    clear();
    if (error instanceof TokenNeeded) return askForToken();
    if (!(error instanceof Problem)) {
      say("This page has an error", String(error));
      throw error;
    }
    $("problem").firstElementChild.textContent = error.message;
    $("again").hidden = picture === null && models.length > 0;
    $("problem").hidden = false;
    $("problem").scrollIntoView({ block: "nearest" });
  } finally {
    if (!signal.aborted) $("output").ariaBusy = "false";
  }
}

/** Once more, without a new picture: another model, another token, or the server is back. */
function retry() {
  const signal = nextTurn();
  return attempt(signal, () => (picture ? ask(signal) : readModels(signal)));
}

function askForToken() {
  $("token-note").textContent = token
    ? "The server does not take this token."
    : "This server answers only those who have its token.";
  $("token-form").hidden = false;
  $("token").focus();
}

// ---- What is on the page ----

function clear() {
  say("Which of these ten?", "Choose a picture, and the answer appears here.");
  if (!picture) {
    $("original").hidden = $("seen").hidden = $("cut").hidden = true;
    $("name").textContent = "Your picture";
  }
  $("timing").textContent = "";
  showBars(CLASS_NAMES.map((name) => ({ name, probability: null })));
}

function say(headline, detail) {
  $("headline").textContent = headline;
  $("detail").textContent = detail;
}

function showPictures(original, name) {
  URL.revokeObjectURL($("original").src);
  const { src, naturalWidth: width, naturalHeight: height } = original;
  $("original").src = src;
  $("original").classList.toggle("pixels", Math.max(width, height) <= 128);
  const share = (100 * Math.min(width, height)) / Math.max(width, height);
  $("cut").style.width = $("cut").style.height = `${share}%`;
  $("seen").src = picture;
  $("name").textContent = `${name}, ${width} × ${height}`;
  $("original").hidden = $("seen").hidden = $("cut").hidden = false;
}

function showAnswer(probabilities) {
  const ranked = CLASS_NAMES.map((name, i) => ({ name, probability: probabilities[i] })).sort(
    (a, b) => b.probability - a.probability,
  );
  const [first, second] = ranked;
  const isLikely = first.probability >= LIKELY;
  const next = `${article(second.name)} ${second.name} with ${inWords(second.probability)}.`;
  const name = `${article(first.name).replace("a", "A")} ${first.name}`;
  const much = inWords(first.probability);
  if (isLikely) say(name, `With a probability of ${much}. Next comes ${next}`);
  else say("Perhaps none of the ten", `${name} comes closest with ${much}, then ${next}`);
  showBars(ranked, isLikely);
  $("verdict").scrollIntoView({ block: "nearest" });
}

function article(name) {
  return /^[aeiou]/.test(name) ? "an" : "a";
}

function percent(share) {
  if (share > 0 && share < 0.0005) return "<\u00a00.1\u00a0%";
  if (share < 1 && share >= 0.9995) return ">\u00a099.9\u00a0%";
  return `${(100 * share).toFixed(1)}\u00a0%`;
}

function inWords(share) {
  return percent(share).replace("<", "less than").replace(">", "more than");
}

function showBars(ranked, isFirstNamed = false) {
  ranked.forEach(({ name, probability }, i) => {
    const row = $("bars").rows[i];
    row.className = isFirstNamed && i === 0 ? "named" : "";
    row.cells[0].textContent = name;
    row.querySelector(".bar").style.width = `${100 * (probability ?? 0)}%`;
    row.querySelector("data").value = probability ?? "";
    row.querySelector("data").textContent = probability === null ? "–" : percent(probability);
  });
}

function showPrograms(url) {
  $("curl").textContent = [
    `printf '{"signature_name": "image_bytes",`,
    `  "instances": [{"b64": "%s"}]}' \\`,
    `  "$(base64 < cat.jpg | tr -d '\\n')" |`,
    `curl -d @- -H "Content-Type: application/json" \\`,
    ...(token ? [`  -H "Authorization: Bearer $TOKEN" \\`] : []),
    `  ${url}`,
  ].join("\n");
  $("python").textContent = [
    `import base64, json, ${token ? "os, " : ""}urllib.request`,
    "",
    `with open("cat.jpg", "rb") as file:`,
    "    content = base64.b64encode(file.read()).decode()",
    "body = {",
    `    "signature_name": "image_bytes",`,
    `    "instances": [{"b64": content}],`,
    "}",
    "request = urllib.request.Request(",
    `    "${url}",`,
    "    json.dumps(body).encode(),",
    `    {"Content-Type": "application/json"},`,
    ")",
    ...(token ? [`token = os.environ["TOKEN"]`] : []),
    ...(token ? [`request.add_header("Authorization", f"Bearer {token}")`] : []),
    "with urllib.request.urlopen(request) as response:",
    `    print(json.load(response)["predictions"][0])`,
  ].join("\n");
}

/** Copies a program; pages over plain http have no clipboard, but from localhost. */
async function copy(button) {
  const code = button.parentElement.querySelector("code");
  let copied = true;
  try {
    await navigator.clipboard.writeText(code.textContent);
  } catch {
    getSelection().selectAllChildren(code);
    copied = document.execCommand("copy");
  }
  const outcome = copied ? "Copied" : "Selected: press Ctrl+C";
  $("announcement").textContent = button.textContent = outcome;
  setTimeout(() => {
    $("announcement").textContent = "";
    button.textContent = "Copy";
  }, 2000);
}

// ---- What people do ----

function fileOfSample(image) {
  const bytes = Uint8Array.from(atob(image.src.split(",")[1]), (c) => c.charCodeAt(0));
  return new File([bytes], `${image.alt}.png`, { type: "image/png" });
}

for (const button of SAMPLES) {
  button.addEventListener("click", () => show(fileOfSample(button.firstElementChild)));
}

for (const input of [$("file"), $("camera")]) {
  input.addEventListener("change", () => {
    if (input.files.length) show(input.files[0]);
    input.value = ""; // or the same file chosen again would be no change
  });
}

document.addEventListener("paste", (event) => {
  if (event.target !== $("token")) show(event.clipboardData.files[0]);
});

document.addEventListener("dragover", (event) => {
  event.preventDefault();
  $("drop").classList.add("over");
});

document.addEventListener("dragleave", (event) => {
  if (event.relatedTarget === null) $("drop").classList.remove("over");
});

document.addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  show(event.dataTransfer.files[0]);
});

$("model").addEventListener("change", () => {
  choose(models.find(({ path }) => path === $("model").value));
  if (picture) retry();
});

$("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  token = $("token").value.trim();
  $("token-form").hidden = true;
  retry();
});

$("again").addEventListener("click", retry);

for (const button of document.querySelectorAll(".copy")) {
  button.addEventListener("click", () => copy(button));
}

$("bars").append(...CLASS_NAMES.map(() => $("bar").content.cloneNode(true)));
clear();
retry();
