"use strict";

const STUDY = JSON.parse(document.getElementById("study").textContent);
const DRIFT = 0.06; // seconds by which a clip may be apart from the source before it is set to it
const RETRY = 5000; // milliseconds between attempts to send
const FIELDS = ["trial", "clips", "choices", "seconds", "loops", "answered"]; // of an answer, as it leaves the page
const $ = (id) => document.getElementById(id);

// ---- What the browser keeps: without storage, such as in a private window, a session lasts until the page is closed.

const storage = {
  read(name) { try { return JSON.parse(localStorage.getItem(`study:${STUDY.study}:${name}`)); } catch { return null; } },
  write(name, value) { try { localStorage.setItem(`study:${STUDY.study}:${name}`, JSON.stringify(value)); } catch { /* lasts as long as the page */ } },
};
const save = () => storage.write(`rater:${session.rater}`, session);

// ---- Who answers, and which sheet.

const random = (below) => crypto.getRandomValues(new Uint32Array(1))[0] % below;

function raterName() {
  const given = new URLSearchParams(location.search).get("rater");
  if (given) return given.slice(0, 64);
  const name = storage.read("me") ?? `anonymous-${random(2 ** 32).toString(16).padStart(8, "0")}`;
  storage.write("me", name);
  return name;
}

// The server that comes with the study hands out the sheet that fewest have answered; any other host has no such address.
async function sheetFromServer(rater) {
  if (!location.protocol.startsWith("http") || STUDY.post) return null;
  try {
    const reply = await fetch(`assign?rater=${encodeURIComponent(rater)}`);
    const { study, sheet } = await reply.json();
    return reply.ok && study === STUDY.study ? sheet : null;
  } catch { return null; }
}

function sheetByName(rater) {
  return /^[0-9]{1,9}$/.test(rater) ? (Math.max(Number(rater), 1) - 1) % STUDY.sheets.length : random(STUDY.sheets.length);
}

async function newSession(rater) {
  const sheet = await sheetFromServer(rater);
  const post = STUDY.post ?? (sheet === null ? null : "answers");
  return { rater, sheet: sheet ?? sheetByName(rater), post, started: null, finished: null, answers: [], draft: null };
}

// ---- Answers leave: posted one by one as they are given, and all of them as a file.

const trials = () => STUDY.sheets[session.sheet].trials;
const picked = (answer) => Object.fromEntries(FIELDS.map((name) => [name, answer[name]]));
const heading = () => ({ study: STUDY.study, seed: STUDY.seed, rater: session.rater, sheet: session.sheet, signature: STUDY.sheets[session.sheet].signature });

async function post(answer) {
  const body = JSON.stringify({ ...heading(), ...picked(answer) });
  const reply = await fetch(session.post, { method: "POST", headers: { "Content-Type": "application/json" }, body });
  if (reply.ok || reply.status === 409) answer.sent = true; // 409: it is there already
  else if (reply.status < 500 && reply.status !== 429) answer.refused = (await reply.text()).slice(0, 300);
  else throw new Error(reply.statusText);
}

let sending = false;
async function send() {
  if (!session.post || sending) return;
  sending = true;
  try {
    for (const answer of session.answers) if (!answer.sent && !answer.refused) await post(answer);
  } catch {
    setTimeout(send, RETRY);
  }
  sending = false;
  save();
  showDelivery();
}

function download() {
  const { started, finished, answers } = session;
  const file = { format: 1, ...heading(), design: STUDY.design, started, finished, window: [innerWidth, innerHeight], answers: answers.map(picked) };
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(file, null, 1)], { type: "application/json" }));
  link.download = `answers-${STUDY.study}-${session.rater.replace(/[^\w-]/g, "_")}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function showDelivery() {
  const refused = session.answers.find((answer) => answer.refused)?.refused;
  const waiting = session.answers.filter((answer) => !answer.sent).length;
  let text = "All your answers have arrived. You can close this page.";
  if (!session.post) text = "Your answers are stored in this browser only. Please download them and send the file to whoever invited you.";
  else if (refused) text = `Some answers were not taken (${refused}). Please download them and send the file to whoever invited you.`;
  else if (waiting) text = `${waiting} answers are on their way. Please leave this page open, or download them.`;
  $("delivery").textContent = text;
  $("download").classList.toggle("primary", !session.post || Boolean(refused));
}

// ---- Clips: the source leads, the edits follow it, all of them start again together.

const videos = [...document.querySelectorAll("#trial video")];
const [lead, ...edits] = videos;
let wanted = true; // to play
let loading = 0; // counts trials, so that a late clip of the trial before starts nothing
let view = { seconds: 0, loops: 0, last: 0 };

const clip = (name) => `clips/${name}.mp4`;
const play = () => { for (const video of videos) video.play().catch(() => {}); };
const pause = () => { for (const video of videos) video.pause(); };
const toggle = () => { wanted = !wanted; wanted ? play() : pause(); };

function loaded(video, address) {
  return new Promise((resolve, reject) => {
    video.oncanplaythrough = resolve;
    video.onerror = () => reject(new Error(address));
    video.src = address;
    video.load();
  });
}

async function showClips(trial) {
  const turn = ++loading;
  $("trouble").hidden = true;
  form.classList.add("waiting");
  try {
    const addresses = [STUDY.pairs[trial.pair].source, ...trial.clips].map(clip);
    await Promise.all(videos.map((video, i) => loaded(video, addresses[i])));
  } catch {
    if (turn === loading) $("trouble").hidden = false;
    return;
  }
  if (turn !== loading) return;
  form.classList.remove("waiting");
  document.documentElement.style.setProperty("--aspect", lead.videoWidth / lead.videoHeight);
  for (const video of videos) video.currentTime = 0;
  if (wanted) play();
  update();
  prefetch();
}

let ahead = [];
function prefetch() {
  const next = trials()[session.answers.length + 1];
  if (!next) return;
  ahead = [STUDY.pairs[next.pair].source, ...next.clips].map((name) => Object.assign(document.createElement("video"), { preload: "auto", muted: true, src: clip(name) }));
}

// Time counts while the page is visible: a hidden page draws no frames.
function follow(now) {
  if (ready()) view.seconds += Math.min((now - view.now) / 1000 || 0, 0.5);
  view.now = now;
  if (!lead.paused && lead.duration) {
    if (lead.currentTime < view.last) view.loops += 1;
    view.last = lead.currentTime;
    for (const edit of edits) keepInStep(edit);
  }
  $("play").textContent = lead.paused ? "▶" : "❚❚";
  requestAnimationFrame(follow);
}

function keepInStep(edit) {
  if (edit.seeking || edit.readyState < 2) return;
  const apart = Math.abs(edit.currentTime - lead.currentTime);
  if (Math.min(apart, Math.abs(lead.duration - apart)) > DRIFT) edit.currentTime = Math.min(lead.currentTime, edit.duration);
}

// ---- A trial.

const form = $("questions");
const fieldsets = [...form.querySelectorAll("fieldset")];
let session = null;
let current = 0; // the question that a key answers

const ready = () => session !== null && !$("trial").hidden && !form.classList.contains("waiting");
const chosen = (fieldset) => fieldset.querySelector("input:checked");
const complete = () => fieldsets.every(chosen);

function choices() {
  const value = (fieldset) => (chosen(fieldset).value === "none" ? null : Number(chosen(fieldset).value));
  return Object.fromEntries(fieldsets.filter(chosen).map((fieldset) => [fieldset.name, value(fieldset)]));
}

function update() {
  fieldsets.forEach((fieldset, i) => fieldset.classList.toggle("current", i === current));
  for (const fieldset of fieldsets) fieldset.disabled = form.classList.contains("waiting");
  $("next").disabled = !ready() || !complete();
}

function moveOn() {
  const open = fieldsets.findIndex((fieldset) => !chosen(fieldset));
  current = open < 0 ? fieldsets.length - 1 : open;
  update();
  if (open > 0) fieldsets[open].scrollIntoView({ block: "nearest", behavior: "smooth" });
}

function draft() {
  session.draft = { trial: trials()[session.answers.length].id, choices: choices(), seconds: view.seconds, loops: view.loops };
  save();
}

function choose(value) {
  const input = fieldsets[current].querySelector(`input[value="${value}"]`);
  if (!input || !ready()) return;
  input.checked = true;
  draft();
  moveOn();
}

function showTrial() {
  const trial = trials()[session.answers.length];
  const begun = session.draft?.trial === trial.id ? session.draft : { choices: {}, seconds: 0, loops: 0 };
  view = { seconds: begun.seconds, loops: begun.loops, last: 0 };
  form.reset();
  for (const [question, choice] of Object.entries(begun.choices)) {
    form.querySelector(`input[name="${question}"][value="${choice ?? "none"}"]`).checked = true;
  }
  $("source_prompt").textContent = STUDY.pairs[trial.pair].source_prompt;
  $("target_prompt").textContent = STUDY.pairs[trial.pair].target_prompt;
  wanted = true;
  showClips(trial);
  moveOn();
  scrollTo(0, 0);
  $("prompts").focus({ preventScroll: true });
}

function finishTrial() {
  if (!ready() || !complete()) return;
  const trial = trials()[session.answers.length];
  const seconds = Math.round(view.seconds * 100) / 100;
  session.answers.push({ trial: trial.id, clips: trial.clips, choices: choices(), seconds, loops: view.loops, answered: new Date().toISOString() });
  session.draft = null;
  if (session.answers.length === trials().length) session.finished = new Date().toISOString();
  save();
  send();
  show();
}

// ---- Which screen.

function show() {
  const done = session.answers.length;
  const of = trials().length;
  const screen = !session.started ? "welcome" : done < of ? "trial" : "done";
  for (const id of ["welcome", "trial", "done"]) $(id).hidden = id !== screen;
  document.querySelector("header").classList.toggle("blank", screen === "welcome");
  $("progress").value = done;
  $("count").textContent = { welcome: "", trial: `${done + 1} of ${of}`, done: `${of} of ${of}` }[screen];
  if (screen === "trial") showTrial();
  else pause();
  if (screen === "welcome") $("begin").focus({ preventScroll: true });
  if (screen === "done") showDelivery();
}

const PAIRWISE_KEYS = { ArrowLeft: "0", 1: "0", a: "0", ArrowDown: "none", 2: "none", n: "none", ArrowRight: "1", 3: "1", b: "1" };

function keyed(key) {
  if (STUDY.design === "pairwise") return PAIRWISE_KEYS[key];
  const place = /^[1-9]$/.test(key) ? Number(key) - 1 : /^[a-z]$/.test(key) ? key.charCodeAt(0) - 97 : edits.length;
  return place < edits.length ? String(place) : undefined;
}

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || !ready()) return;
  const onButton = event.target.closest("button");
  const value = keyed(event.key.length === 1 ? event.key.toLowerCase() : event.key);
  if (event.key === "Enter" && !onButton) finishTrial();
  else if (event.key === " " && !onButton) toggle();
  else if (event.key === "ArrowUp" || event.key === "Backspace") { current = Math.max(current - 1, 0); update(); }
  else if (value !== undefined) { if (!event.repeat) choose(value); }
  else return;
  event.preventDefault();
}

document.addEventListener("keydown", pressed);
form.addEventListener("submit", (event) => { event.preventDefault(); finishTrial(); });
form.addEventListener("change", () => { draft(); moveOn(); });
form.addEventListener("focusin", (event) => {
  const place = fieldsets.indexOf(event.target.closest("fieldset"));
  if (place >= 0) { current = place; update(); }
});
$("play").addEventListener("click", toggle);
$("retry").addEventListener("click", () => showClips(trials()[session.answers.length]));
$("download").addEventListener("click", download);
$("begin").addEventListener("click", () => { session.started = new Date().toISOString(); save(); show(); });
addEventListener("online", () => session && send());

(async () => {
  const rater = raterName();
  session = storage.read(`rater:${rater}`) ?? await newSession(rater);
  save();
  show();
  send();
  requestAnimationFrame(follow);
})();
