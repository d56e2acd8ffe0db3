// The cursor follows the player. A click on the map and the slider move both. Without scripts, map, player and table remain.
for (const song of document.querySelectorAll(".song")) {
  const audio = song.querySelector("audio"), plot = song.querySelector(".plot");
  const begin = Number(song.dataset.begin ?? 0), end = Number(song.dataset.end);
  const names = [...song.querySelectorAll(".names li")];
  const means = names.map((name) => name.lastElementChild.textContent);
  const windows = [...song.querySelector("tbody").rows].map((row) => ({
    start: Number(row.cells[0].dataset.start),
    scores: [...row.cells].slice(1).map((cell) => cell.textContent),
  }));
  const cursor = document.createElement("i"), slider = document.createElement("input");
  cursor.className = "cursor";
  plot.append(cursor);
  Object.assign(slider, {type: "range", min: begin, max: end, step: end - begin < 60 ? 0.5 : 1, value: begin});
  slider.setAttribute("aria-label", "position in the song in seconds");
  plot.parentElement.append(slider);
  const clock = (s) => `${Math.floor(s / 60)} min ${Math.floor(s % 60)} s`;
  const show = (time) => {
    cursor.style.left = `${100 * Math.max(0, Math.min(1, (time - begin) / (end - begin)))}%`;
    slider.value = time;
    const {scores} = windows.findLast((row) => row.start <= time) ?? windows[0];
    names.forEach((name, i) => { name.lastElementChild.textContent = scores[i]; });
    const label = (i) => `${names[i].firstElementChild.textContent} ${scores[i]}`;
    const top = scores.map((_, i) => i).sort((i, j) => (parseFloat(scores[j]) || 0) - (parseFloat(scores[i]) || 0));
    slider.setAttribute("aria-valuetext", `${clock(time)}: ${top.slice(0, 3).map(label).join(", ")}`);
  };
  const seek = (time) => {
    if (audio && !audio.error) audio.currentTime = time;
    show(time);
  };
  plot.onclick = (event) => {
    const box = plot.getBoundingClientRect();
    seek(Math.max(begin, Math.min(end, begin + ((end - begin) * (event.clientX - box.left)) / box.width)));
  };
  slider.oninput = () => seek(Number(slider.value));
  slider.setAttribute("aria-valuetext", clock(begin));
  if (!audio) continue;
  const follow = () => {
    show(audio.currentTime);
    if (!audio.paused) requestAnimationFrame(follow);
  };
  audio.onplay = () => {
    for (const other of document.querySelectorAll("audio")) if (other !== audio) other.pause();
    follow();
  };
  audio.onseeked = () => show(audio.currentTime);
  audio.onended = () => names.forEach((name, i) => { name.lastElementChild.textContent = means[i]; });
  audio.onerror = () => { song.querySelector(".problem").hidden = false; };
  if (audio.error) audio.onerror();
}
