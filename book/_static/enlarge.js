// A figure that is clicked, or whose link is followed by keyboard, opens large above the page.
// Without this script, or with a modifier key, the link leads to the picture's file.
document.addEventListener("click", (event) => {
  const link = event.target.closest("a.enlarge");
  if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) {
    return;
  }
  event.preventDefault();
  const picture = link.parentElement.cloneNode(true);
  picture.querySelector("a").remove();
  const dialog = document.createElement("dialog");
  dialog.className = "enlarged";
  dialog.setAttribute("aria-label", "Figure, enlarged");
  const close = document.createElement("button");
  close.type = "button";
  close.textContent = "Close";
  dialog.append(close, picture);
  dialog.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
});
