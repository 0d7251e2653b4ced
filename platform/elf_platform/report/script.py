"""The script of the report: tooltips on charts and copy buttons. It writes text only as text, never as markup."""

SCRIPT = """
(function () {
  const tip = document.createElement("div");
  tip.id = "tip";
  tip.hidden = true;
  document.body.appendChild(tip);

  function add(parent, tag, text, name) {
    const element = document.createElement(tag);
    element.textContent = text;
    element.className = name || "";
    parent.appendChild(element);
    return element;
  }

  function nearest(places, x) {
    let best = 0;
    places.forEach(function (place, i) {
      if (Math.abs(place - x) < Math.abs(places[best] - x)) best = i;
    });
    return best;
  }

  document.querySelectorAll("svg.chart").forEach(function (svg) {
    const lines = Array.from(svg.querySelectorAll("polyline[data-values]"), function (line) {
      return {
        name: line.dataset.name,
        colour: line.classList[0],
        values: JSON.parse(line.dataset.values),
        places: Array.from(line.points, function (point) { return point.x; }),
      };
    });
    if (!lines.length) return;
    const marks = Array.from(svg.querySelectorAll("g.mark"), function (mark) {
      return { place: Number(mark.dataset.x), words: mark.dataset.words };
    });
    const box = svg.viewBox.baseVal;
    const cross = document.createElementNS("http://www.w3.org/2000/svg", "line");
    cross.setAttribute("class", "cross");
    cross.setAttribute("y1", 12);
    cross.setAttribute("y2", box.height - 42);
    cross.style.display = "none";
    svg.appendChild(cross);

    svg.addEventListener("pointermove", function (event) {
      const frame = svg.getBoundingClientRect();
      const x = ((event.clientX - frame.left) / frame.width) * box.width;
      const found = lines.map(function (line) { return nearest(line.places, x); });
      const lead = nearest(lines.map(function (line, i) { return line.places[found[i]]; }), x);
      const place = lines[lead].places[found[lead]];
      cross.setAttribute("x1", place);
      cross.setAttribute("x2", place);
      cross.style.display = "";
      tip.textContent = "";
      add(tip, "b", svg.dataset.x + " " + lines[lead].values[found[lead]][0]);
      lines.forEach(function (line) {
        const i = nearest(line.places, place);
        if (Math.abs(line.places[i] - place) > box.width / 40) return;
        const row = add(tip, "span", "");
        add(row, "i", line.name, line.colour);
        add(row, "span", line.values[i][1]);
      });
      marks.forEach(function (mark) {
        if (Math.abs(mark.place - x) < box.width / 80) add(tip, "span", mark.words, "words");
      });
      tip.hidden = false;
      const right = event.clientX + 16;
      const left = right + tip.offsetWidth > innerWidth - 8 ? event.clientX - tip.offsetWidth - 16 : right;
      tip.style.left = Math.max(8, left) + "px";
      tip.style.top = Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 8) + "px";
    });
    svg.addEventListener("pointerleave", function () {
      tip.hidden = true;
      cross.style.display = "none";
    });
  });

  document.querySelectorAll("button[data-copy]").forEach(function (button) {
    function done() {
      button.textContent = "copied";
      setTimeout(function () { button.textContent = "copy"; }, 1400);
    }
    function byHand() { // pages opened as files have no clipboard in some browsers
      const area = document.createElement("textarea");
      area.value = button.dataset.copy;
      document.body.appendChild(area);
      area.select();
      document.execCommand("copy");
      area.remove();
      done();
    }
    button.addEventListener("click", function () {
      if (navigator.clipboard && isSecureContext) navigator.clipboard.writeText(button.dataset.copy).then(done, byHand);
      else byHand();
    });
  });
})();
"""
