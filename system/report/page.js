"use strict";
for (const svg of document.querySelectorAll("svg[data-hover]")) {
  const lines = JSON.parse(svg.dataset.hover), read = svg.parentElement.querySelector(".read");
  const pointer = document.createElementNS("http://www.w3.org/2000/svg", "line");
  pointer.setAttribute("class", "pointer"); pointer.setAttribute("y1", "10"); pointer.setAttribute("y2", "166");
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect(), at = (event.clientX - box.left) / box.width * 360;
    let x = 0;
    const words = lines.map((line) => {
      const near = line.at.reduce((a, b) => (Math.abs(b[0] - at) < Math.abs(a[0] - at) ? b : a));
      x = near[0];
      return (lines.length > 1 ? line.name + " " : "") + near[2];
    });
    pointer.setAttribute("x1", x); pointer.setAttribute("x2", x); svg.append(pointer);
    read.textContent = svg.dataset.x + " " + words.join("  |  ");
  });
  svg.addEventListener("pointerleave", () => { pointer.remove(); read.textContent = ""; });
}
