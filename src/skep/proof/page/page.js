"use strict";
const root = document.documentElement;
const isDark = () =>
  root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
document.getElementById("theme").addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; });
const open = () => {
  const target = location.hash && document.getElementById(location.hash.slice(1));
  for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
  if (target) target.scrollIntoView();
};
addEventListener("hashchange", open);
open();
const scenarios = [...document.querySelectorAll(".scenario")];
const shown = document.getElementById("shown");
document.getElementById("filter").addEventListener("input", (event) => {
  const words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  for (const each of scenarios) {
    each.hidden = !words.every((word) => each.dataset.words.includes(word));
    count += each.hidden ? 0 : 1;
  }
  for (const feature of document.querySelectorAll(".feature")) {
    feature.hidden = !feature.querySelector(".scenario:not([hidden])");
    if (words.length && !feature.hidden) feature.open = true;
  }
  shown.textContent = words.length ? `${count} of ${scenarios.length} scenarios` : "";
});
