// Runs before the first paint, so that the dark theme shows no white flash.
(() => {
  const chosen = localStorage.getItem("copilot.theme");
  if (chosen) document.documentElement.dataset.theme = chosen;
})();
