// uPlot in the colours of the page, as wide as its place.
import { html, useEffect, useRef, useState } from "./ui.js";

const { uPlot } = globalThis;

const axis = (style, label, values) => ({
  label,
  labelSize: 22,
  labelFont: "12px system-ui",
  font: "11px system-ui",
  stroke: style.getPropertyValue("--faint"),
  grid: { stroke: style.getPropertyValue("--line"), width: 1 },
  ticks: { stroke: style.getPropertyValue("--line"), width: 1 },
  ...(values ? { values: (_, all) => all.map(values) } : {}),
});

// series: [{ label, colour, width?, points?, dash? }]; colours are names of CSS variables.
export const Chart = ({ data, series, x, y, height = 220, time = false, ranges = {}, label }) => {
  const place = useRef(null);
  const plot = useRef(null);
  const [look, setLook] = useState(0);

  useEffect(() => {
    const changed = () => setLook((value) => value + 1);
    addEventListener("themechange", changed);
    const media = matchMedia("(prefers-color-scheme: dark)");
    media.addEventListener("change", changed);
    return () => (removeEventListener("themechange", changed), media.removeEventListener("change", changed));
  }, []);

  useEffect(() => {
    const style = getComputedStyle(place.current);
    const colour = (name) => style.getPropertyValue(name).trim();
    plot.current = new uPlot(
      {
        width: place.current.clientWidth,
        height,
        legend: { show: false },
        cursor: { y: false },
        scales: { x: { time, ...ranges.x }, y: { ...ranges.y } },
        axes: [{ ...axis(style, x.label, x.values), size: 42 }, { ...axis(style, y.label, y.values), size: 62 }],
        series: [
          {},
          ...series.map((item) => ({
            label: item.label,
            stroke: colour(item.colour),
            width: item.width ?? 2,
            dash: item.dash,
            spanGaps: true,
            points: { show: item.points ?? false, size: 8, fill: colour(item.colour) },
          })),
        ],
      },
      data,
      place.current,
    );
    const watcher = new ResizeObserver(() => plot.current.setSize({ width: place.current.clientWidth, height }));
    watcher.observe(place.current);
    return () => {
      watcher.disconnect();
      plot.current.destroy();
    };
  }, [look, series.map((item) => item.label).join(), height]);

  useEffect(() => plot.current?.setData(data), [data]);

  return html`<figure class="chart">
    <div ref=${place} role="img" aria-label=${label} />
    ${series.length > 1 && html`<figcaption class="legend">${series.map((item) => html`<span><i class="dot" style=${{ background: `var(${item.colour})` }} />${item.label}</span>`)}</figcaption>`}
  </figure>`;
};
