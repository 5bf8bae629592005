"use strict";
(() => {
  // Told apart by lightness as well as hue, and each has its own dash: for colour-blind readers and grey print.
  const THEMES = {
    light: { ink: "#16202c", soft: "#51606f", grid: "#e3e8ed", faint: "#97a3af", paper: "#ffffff",
      palette: ["#0067a5", "#c94f00", "#00805e", "#a8437f", "#806500", "#5b4bb5", "#2f7f95", "#555b66"] },
    dark: { ink: "#e8edf2", soft: "#a9b6c3", grid: "#2b3641", faint: "#66737f", paper: "#12171d",
      palette: ["#56b4e9", "#ff9a4d", "#3fcf9f", "#e79ac4", "#f0d23c", "#a99bff", "#8fd3e0", "#c3c9d4"] },
  };
  const FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif';
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");

  function rgba(hex, alpha) {
    const n = parseInt(hex.slice(1), 16);
    return `rgba(${n >> 16},${(n >> 8) & 255},${n & 255},${alpha})`;
  }

  function colouredTrace(source, theme) {
    const trace = structuredClone(source);
    const meta = trace.meta || {};
    const colour = meta.faint ? theme.faint : theme.palette[(meta.colour || 0) % theme.palette.length];
    if (meta.band) trace.fillcolor = rgba(colour, 0.16);
    if (trace.line) trace.line.color = colour;
    if (trace.type === "bar") trace.marker = { color: rgba(colour, 0.45) };
    else if (trace.marker) trace.marker = { ...trace.marker, color: colour, line: { color: theme.paper, width: 1 } };
    return trace;
  }

  function completedLayout(source, theme, width) {
    const layout = structuredClone(source);
    for (const key of Object.keys(layout).filter((name) => /^[xy]axis/.test(name))) {
      layout[key] = { gridcolor: theme.grid, zeroline: false, linecolor: theme.soft, showline: true, ticks: "outside",
        tickcolor: theme.soft, automargin: true, tickfont: { size: 12 }, ...layout[key] };
      layout[key].title = { font: { size: 13 }, ...layout[key].title };
    }
    const below = layout.legend && layout.legend.below;
    return { ...layout, autosize: true, margin: { l: 56, r: 14, t: 10, b: 48 }, hovermode: "closest",
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { family: FONT, size: 13, color: theme.ink },
      hoverlabel: { bgcolor: theme.paper, bordercolor: theme.soft, font: { color: theme.ink, family: FONT } },
      showlegend: Boolean(below),
      legend: below ? { orientation: "h", x: 0, xanchor: "left", y: -0.2, yanchor: "top", font: { size: width < 420 ? 11 : 12 } } : {} };
  }

  function draw(isDark) {
    const theme = isDark ? THEMES.dark : THEMES.light;
    for (const figure of figures) {
      const place = document.getElementById(`plot-${figure.key}`);
      const layout = completedLayout(figure.layout, theme, place.clientWidth);
      Plotly.react(place, figure.data.map((trace) => colouredTrace(trace, theme)), layout,
        { responsive: true, displayModeBar: false, scrollZoom: false });
    }
  }

  draw(dark.matches);
  dark.addEventListener("change", () => draw(dark.matches));
  window.addEventListener("beforeprint", () => {
    for (const part of document.querySelectorAll("details")) part.open = true;
    draw(false);
  });
  window.addEventListener("afterprint", () => draw(dark.matches));
})();
