"use strict";
(() => {
  const DASHES = { dash: "8 5", dot: "2 4", dashdot: "8 4 2 4", longdash: "13 6", longdashdot: "13 5 2 5" };
  const HEIGHT = 350, TOP = 8, BOTTOM = HEIGHT - 48, NEAR_PX = 30;
  const escaped = (text) => String(text).replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);
  const shown = (axis, value) => (axis.tickformat ? `${+(100 * value).toFixed(1)} %` : +value.toPrecision(4));

  // An axis from its lowest value at one pixel to its highest at another, with round ticks.
  function scale(axis, values, from, to, room) {
    let [low, high] = axis.range || [Math.min(...values), Math.max(...values)];
    if (!axis.range) {
      const margin = 0.05 * (high - low) || 0.5;
      [low, high] = [axis.rangemode === "tozero" ? Math.min(0, low) : low - margin, high + margin];
    }
    const rough = (high - low) / Math.max(1, Math.min(axis.nticks || 99, Math.floor(Math.abs(to - from) / room)));
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = power * [1, 2, 5, 10].find((n) => n * power >= 0.999 * rough);
    const factor = axis.tickformat ? 100 : 1;
    const digits = Math.max(0, Math.ceil(-Math.log10(step * factor) - 1e-9));
    const ticks = [];
    for (let k = Math.ceil(low / step - 1e-6); k * step <= high + 1e-6 * step; k++) ticks.push(k * step);
    return { ticks, at: (value) => from + ((value - low) / (high - low)) * (to - from),
      label: (value) => (factor * value).toFixed(digits).replace(/^-0(\.0*)?$/, "0$1") + (axis.tickformat ? " %" : "") };
  }

  const text = (x, y, anchor, words, more = "") => `<text x="${x}" y="${y}" text-anchor="${anchor}" ${more}>${escaped(words)}</text>`;

  function drawn(trace, x, y, points, layout, axis) {
    const colour = `style="--c:var(--${trace.meta.faint ? "faint" : `c${(trace.meta.colour || 0) % 8}`})"`;
    const there = trace.x.map((value, i) => value !== null && trace.y[i] !== null);
    const at = trace.x.map((value, i) => (there[i] ? [x.at(value).toFixed(1), y.at(trace.y[i]).toFixed(1)] : null));
    if (trace.hoverinfo !== "skip") {
      at.forEach((place, i) => place && points.push({ place, lines: [trace.text && trace.text[i], trace.name,
        `${layout.xaxis.title.text}: ${shown(layout.xaxis, trace.x[i])}`, `${axis.title.text}: ${shown(axis, trace.y[i])}`] }));
    }
    const path = at.map((place, i) => (place ? (i && at[i - 1] ? "L" : "M") + place.join(" ") : "")).join("");
    if (trace.type === "bar") {
      const left = (value) => x.at(value - trace.width / 2), wide = (x.at(trace.width) - x.at(0)).toFixed(1);
      return at.map((place, i) => `<rect class="column" ${colour} x="${left(trace.x[i]).toFixed(1)}" y="${place[1]}" width="${wide}" height="${(y.at(0) - place[1]).toFixed(1)}"/>`).join("");
    }
    if (trace.meta.band) return `<path class="band" ${colour} d="${path}Z"/>`;
    const sizes = trace.marker ? trace.marker.size : [];
    const dots = at.map((place, i) => (place && sizes[i] ? `<circle class="dot" ${colour} cx="${place[0]}" cy="${place[1]}" r="${sizes[i] / 2}"/>` : ""));
    return `<path class="curve" ${colour} d="${path}" stroke-width="${trace.line.width}" stroke-dasharray="${DASHES[trace.line.dash] || "none"}" opacity="${trace.opacity || 1}"/>${dots.join("")}`;
  }

  function draw(figure, place) {
    const { layout, data, key } = figure;
    const axes = Object.entries({ y: layout.yaxis, y2: layout.yaxis2 }).filter(([, axis]) => axis);
    const of = (name) => data.filter((trace) => (trace.yaxis || "y") === name);
    const numbers = (traces, side) => traces.flatMap((trace) => trace[side].filter((value) => value !== null));
    const level = (share) => BOTTOM - share * (BOTTOM - TOP);
    const scales = axes.map(([name, axis]) => scale(axis, numbers(of(name), "y"), ...(axis.domain || [0, 1]).map(level), 28));
    const width = place.clientWidth, right = width - 14;
    const left = 34 + 6.5 * Math.max(...scales.flatMap((y) => y.ticks.map((tick) => y.label(tick).length)));
    const x = scale(layout.xaxis, numbers(data, "x"), left, right, 50);
    const points = [];
    const parts = axes.map(([name, axis], i) => {
      const y = scales[i], [low, high] = (axis.domain || [0, 1]).map(level), clip = `clip-${key}-${name}`;
      const lines = y.ticks.map((tick) => `<path class="rule" d="M${left} ${y.at(tick)}H${right}"/>${text(left - 7, y.at(tick) + 4, "end", y.label(tick))}`);
      const uprights = x.ticks.map((tick) => `<path class="rule" d="M${x.at(tick)} ${low}V${high}"/>`);
      const middle = (low + high) / 2;
      return `<clipPath id="${clip}"><rect x="${left - 7}" y="${high - 7}" width="${right - left + 14}" height="${low - high + 14}"/></clipPath>
        ${lines.join("")}${uprights.join("")}<path class="frame" d="M${left} ${high}V${low}H${right}"/>
        ${text(12, middle, "middle", axis.title.text, `class="title" transform="rotate(-90 12 ${middle})"`)}
        <g clip-path="url(#${clip})">${of(name).map((trace) => drawn(trace, x, y, points, layout, axis)).join("")}</g>`;
    });
    const labels = x.ticks.map((tick) => text(x.at(tick), BOTTOM + 17, "middle", x.label(tick)));
    const legend = layout.legend ? data.filter((trace) => trace.name && trace.showlegend !== false) : [];
    const keys = legend.map((trace) => `<li><svg width="30" height="10" aria-hidden="true">${drawn({ ...trace, x: [0, 30], y: [5, 5], marker: null, hoverinfo: "skip" },
      { at: (value) => value }, { at: (value) => value })}</svg>${escaped(trace.name)}</li>`);
    place.innerHTML = `<svg viewBox="0 0 ${width} ${HEIGHT}">${parts.join("")}${labels.join("")}
      ${text((left + right) / 2, HEIGHT - 8, "middle", layout.xaxis.title.text, 'class="title"')}<circle class="here" r="6" visibility="hidden"/></svg>
      <ul class="legend">${keys.join("")}</ul><div class="tip" hidden></div>`;
    place.onpointermove = (event) => point(event, place, points, width);
    place.onpointerleave = () => point(null, place, [], width);
  }

  // Shows the values of the point next to the pointer.
  function point(event, place, points, width) {
    const box = place.getBoundingClientRect(), tip = place.querySelector(".tip"), here = place.querySelector(".here");
    const far = ({ place: [x, y] }) => Math.hypot(x - (event.clientX - box.left), y - (event.clientY - box.top));
    const next = points.reduce((best, each) => (best && far(best) <= far(each) ? best : each), null);
    tip.hidden = !next || far(next) > NEAR_PX;
    here.setAttribute("visibility", tip.hidden ? "hidden" : "visible");
    if (tip.hidden) return;
    const [x, y] = next.place;
    here.setAttribute("cx", x);
    here.setAttribute("cy", y);
    tip.textContent = next.lines.filter(Boolean).join("\n");
    tip.style.left = `${Math.max(0, Math.min(x - tip.offsetWidth / 2, width - tip.offsetWidth))}px`;
    tip.style.top = `${y > tip.offsetHeight + 14 ? y - tip.offsetHeight - 12 : +y + 14}px`;
  }

  for (const figure of JSON.parse(document.getElementById("figures").textContent)) {
    const place = document.getElementById(`plot-${figure.key}`);
    new ResizeObserver(() => draw(figure, place)).observe(place);
  }
  window.addEventListener("beforeprint", () => {
    for (const part of document.querySelectorAll("details")) part.open = true;
  });
})();
