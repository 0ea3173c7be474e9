// Shows each snapshot that the server sends. Texts are set as text, and never as HTML.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const IN_A_ROW = 12;
const ROWS = 3;
const token = new URLSearchParams(location.search).get("token");
const query = (fields) => new URLSearchParams({ token, ...fields });
const diagram = document.querySelector("figure svg");
const dots = new Map();

function element(name, text, className) {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

// Below a box there is room for a few rows of dots. More dots lie on the last row, and the table has their number.
function place(phase, number) {
  const box = document.querySelector(`[data-phase="${phase}"] rect`);
  const left = Number(box.getAttribute("x")), top = Number(box.getAttribute("y"));
  const row = Math.min(Math.floor(number / IN_A_ROW), ROWS - 1);
  return [left + 6 + (number % IN_A_ROW) * 12, top + Number(box.getAttribute("height")) + 3 + row * 11];
}

function dot(id) {
  const made = document.createElementNS(SVG, "circle");
  made.setAttribute("r", "5");
  made.append(document.createElementNS(SVG, "title"));
  diagram.append(made);
  dots.set(id, made);
  return made;
}

function showDots(found) {
  const inPhase = new Map();
  for (const { id, phase } of found) {
    const made = dots.get(id) ?? dot(id);
    const number = inPhase.get(phase) ?? 0;
    inPhase.set(phase, number + 1);
    const [x, y] = place(phase, number);
    made.style.transform = `translate(${x}px, ${y}px)`;
    made.setAttribute("class", `dot ${phase}`);
    made.firstChild.textContent = `${id}: ${phase}`;
  }
  const kept = new Set(found.map(({ id }) => id));
  for (const [id, made] of dots) {
    if (!kept.has(id)) {
      made.remove();
      dots.delete(id);
    }
  }
  return inPhase;
}

function show({ dots: found, counts, lines }) {
  const inPhase = showDots(found);
  document.querySelector("#counts").replaceChildren(
    ...Object.entries(counts).map(([name, count]) => {
      const item = element("li", `${name} `, name === "left behind" && count ? "bad" : "");
      item.append(element("b", count));
      return item;
    }),
  );
  document.querySelector("#phases").replaceChildren(
    ...[...inPhase].map(([phase, count]) => {
      const row = document.createElement("tr");
      row.append(element("td", phase), element("td", count));
      return row;
    }),
  );
  document.querySelector("#lines").replaceChildren(
    ...lines.map((line) => element("li", line.replace(/^!/, "✗ "), line.startsWith("!") ? "fault" : "")),
  );
}

const state = document.querySelector("#state");
const events = new EventSource(`/watch/events?${query({})}`);
events.onopen = () => { state.textContent = "Live"; };
events.onerror = () => { state.textContent = "The program has ended, or can't be reached."; };
events.onmessage = ({ data }) => show(JSON.parse(data));

for (const button of document.querySelectorAll("button")) {
  button.addEventListener("click", async () => {
    const reply = await fetch(`/watch/faults?${query({ fault: button.dataset.fault })}`, { method: "POST" });
    state.textContent = reply.ok ? `Scripted: ${button.textContent}` : "The fault could not be scripted.";
  });
}
