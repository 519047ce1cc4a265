"use strict";

// A heading's button sorts its table: numbers by value, names by alphabet, empty cells last.
for (const button of document.querySelectorAll("thead button")) {
  button.addEventListener("click", () => {
    const heading = button.closest("th");
    const table = heading.closest("table");
    const column = heading.cellIndex;
    const before = heading.getAttribute("aria-sort");
    const descending = before ? before !== "descending" : column > 0; // first, numbers down and names up
    for (const other of table.querySelectorAll("thead th")) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const key = (row) => row.cells[column].dataset.value;
    const compare = (a, b) => {
      if (column === 0) return a.cells[0].textContent.localeCompare(b.cells[0].textContent);
      return key(a) - key(b);
    };
    const rows = [...table.tBodies[0].rows];
    const filled = rows.filter((row) => column === 0 || key(row) !== undefined).sort(compare);
    if (descending) filled.reverse();
    table.tBodies[0].append(...filled, ...rows.filter((row) => !filled.includes(row)));
  });
}

// The videos of one pair play in step: the first leads, one that drifts by more than this many seconds is set to it.
const DRIFT = 0.05;
const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
for (const pair of document.querySelectorAll(".pair")) {
  const videos = [...pair.querySelectorAll("video")];
  if (!videos.length) continue;
  const [lead, ...others] = videos;
  const play = pair.querySelector(".play");
  const position = pair.querySelector("input");
  let wanted = !still;
  const show = () => { play.textContent = lead.paused ? "▶" : "❚❚"; };
  const start = () => { for (const video of videos) video.play().catch(() => {}); };
  const stop = () => { for (const video of videos) video.pause(); };
  play.addEventListener("click", () => { wanted = lead.paused; wanted ? start() : stop(); });
  position.addEventListener("input", () => {
    wanted = false;
    stop();
    for (const video of videos) video.currentTime = (position.value / 1000) * lead.duration;
  });
  lead.addEventListener("play", show);
  lead.addEventListener("pause", show);
  const follow = () => {
    if (!lead.paused && lead.duration) {
      position.value = Math.round((1000 * lead.currentTime) / lead.duration);
      for (const video of others) {
        if (!video.seeking && Math.abs(video.currentTime - lead.currentTime) > DRIFT) video.currentTime = lead.currentTime;
      }
    }
    requestAnimationFrame(follow);
  };
  requestAnimationFrame(follow);
  new IntersectionObserver((entries) => (entries.at(-1).isIntersecting && wanted ? start() : stop())).observe(pair);
}
