// The collection in two dimensions: a sample of its records, projected, coloured by a field.
import { Button, Field, Loading, Note, count, html, idText, short, useEffect, useMemo, useRef, useState } from "./ui.js";
import { api } from "./api.js";
import { unpack, write } from "./json.js";
import { Filter } from "./filter.js";
import { project } from "./pca.js";
import { RecordDialog } from "./record.js";

const HUES = ["#6366f1", "#10b981", "#f59e0b", "#ef4444", "#0ea5e9", "#d946ef", "#84cc16", "#f97316", "#14b8a6", "#a855f7"];
const OTHER = "#94a3b8";

const valueOf = (record, field) => {
  const value = field.split(".").reduce((found, key) => found?.[key], record.metadata);
  return Array.isArray(value) ? value[0] : value;
};

// How records are coloured: many different numbers by size, anything else by value, the most frequent first.
const colouring = (records, field) => {
  if (!field) return { of: () => HUES[0], legend: [] };
  const values = records.map((record) => valueOf(record, field));
  const numbers = values.filter((value) => typeof value === "number");
  if (numbers.length > values.length / 2 && new Set(numbers).size > 12) {
    const low = Math.min(...numbers);
    const high = Math.max(...numbers);
    const of = (record) => {
      const value = valueOf(record, field);
      return typeof value === "number" ? `hsl(${250 - (210 * (value - low)) / (high - low || 1)} 75% 55%)` : OTHER;
    };
    return { of, legend: [[`hsl(250 75% 55%)`, String(low)], [`hsl(40 75% 55%)`, String(high)]] };
  }
  const counts = new Map();
  for (const value of values) if (value !== undefined && value !== null) counts.set(write(value), (counts.get(write(value)) ?? 0) + 1);
  const most = [...counts].sort((a, b) => b[1] - a[1]).slice(0, HUES.length);
  const hue = new Map(most.map(([value], at) => [value, HUES[at]]));
  const of = (record) => hue.get(write(valueOf(record, field) ?? null)) ?? OTHER;
  const legend = most.map(([value, number]) => [hue.get(value), `${short(value.replace(/^"|"$/g, ""), 24)} (${number})`]);
  if (counts.size > most.length) legend.push([OTHER, "others"]);
  return { of, legend };
};

export const SpaceMap = ({ name }) => {
  const [size, setSize] = useState(1500);
  const [where, setWhere] = useState(null);
  const [field, setField] = useState(null);
  const [found, setFound] = useState(null);
  const [error, setError] = useState(null);
  const [version, setVersion] = useState(0);
  const [hover, setHover] = useState(null);
  const [near, setNear] = useState(null);
  const [shown, setShown] = useState(null);
  const [view, setView] = useState({ scale: 1, x: 0, y: 0 });
  const [looks, setLooks] = useState(0);
  const canvas = useRef(null);
  const drag = useRef(null);

  useEffect(() => {
    let current = true;
    setNear(null);
    setHover(null);
    setView({ scale: 1, x: 0, y: 0 });
    const body = { size: Number(size), include: ["metadata", "text", "vector"], vector_format: "base64" };
    Promise.all([api.sample(name, where ? { ...body, where } : body), api.describe(name)]).then(
      ([sample, { space }]) => {
        if (!current) return;
        setFound({ records: sample.map((record) => ({ ...record, vector: unpack(record.vector) })), space });
        setError(null);
      },
      (problem) => current && setError(problem),
    );
    return () => {
      current = false;
    };
  }, [name, size, where === null ? null : write(where), version]);

  const records = found?.records;
  const fields = useMemo(() => {
    const seen = new Map();
    for (const record of records ?? []) for (const key of Object.keys(record.metadata ?? {})) seen.set(key, (seen.get(key) ?? 0) + 1);
    return [...seen.keys()].sort((a, b) => spread(records, a) - spread(records, b));
  }, [records]);
  const chosen = field ?? fields[0] ?? "";
  const colours = useMemo(() => colouring(records ?? [], chosen), [records, chosen]);
  const projection = useMemo(() => (records?.length ? project(records.map((record) => record.vector), found.space) : null), [found]);

  const frame = () => {
    const box = canvas.current.getBoundingClientRect();
    const xs = projection.points.map(([x]) => x);
    const ys = projection.points.map(([, y]) => y);
    const [left, right, low, high] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
    const fit = Math.min((box.width - 48) / (right - left || 1), (box.height - 48) / (high - low || 1)) * view.scale;
    const place = ([x, y]) => [
      box.width / 2 + (x - (left + right) / 2) * fit + view.x,
      box.height / 2 - (y - (low + high) / 2) * fit + view.y,
    ];
    return { box, place };
  };

  useEffect(() => {
    const resized = () => setLooks((value) => value + 1);
    addEventListener("resize", resized);
    addEventListener("themechange", resized);
    return () => (removeEventListener("resize", resized), removeEventListener("themechange", resized));
  }, []);

  useEffect(() => {
    if (!projection || !canvas.current) return;
    const { box, place } = frame();
    const ratio = devicePixelRatio || 1;
    canvas.current.width = box.width * ratio;
    canvas.current.height = box.height * ratio;
    const context = canvas.current.getContext("2d");
    context.scale(ratio, ratio);
    const style = getComputedStyle(canvas.current);
    const nearIds = new Set(near?.hits.map((hit) => idText(hit.id)) ?? []);
    projection.points.forEach((point, at) => {
      const [x, y] = place(point);
      const dim = near && !nearIds.has(idText(records[at].id)) && near.at !== at;
      context.globalAlpha = dim ? 0.18 : 0.82;
      context.fillStyle = colours.of(records[at]);
      context.beginPath();
      context.arc(x, y, dim ? 2.5 : 3.6, 0, 7);
      context.fill();
    });
    context.globalAlpha = 1;
    if (near) {
      const from = place(projection.points[near.at]);
      context.strokeStyle = style.getPropertyValue("--text");
      for (const hit of near.hits) {
        const [x, y] = place(projection.at(hit.vector));
        context.globalAlpha = 0.5;
        context.beginPath();
        context.moveTo(...from);
        context.lineTo(x, y);
        context.stroke();
        context.globalAlpha = 1;
        context.beginPath();
        context.arc(x, y, 5.5, 0, 7);
        context.stroke();
      }
    }
    const marked = hover ?? near;
    if (marked) {
      const [x, y] = place(projection.points[marked.at]);
      context.lineWidth = 2;
      context.strokeStyle = style.getPropertyValue("--text");
      context.beginPath();
      context.arc(x, y, 7, 0, 7);
      context.stroke();
    }
  }, [projection, colours, hover, near, view, looks]);

  const nearest = (event) => {
    const { box, place } = frame();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    let best = { at: -1, distance: 14 ** 2 };
    projection.points.forEach((point, at) => {
      const [px, py] = place(point);
      const distance = (px - x) ** 2 + (py - y) ** 2;
      if (distance < best.distance) best = { at, distance, x: px, y: py };
    });
    return best.at < 0 ? null : best;
  };
  const moved = (event) => {
    if (!projection) return;
    if (drag.current) {
      const { x, y, view: before } = drag.current;
      if (Math.hypot(event.clientX - x, event.clientY - y) > 4) drag.current.far = true;
      setView({ ...before, x: before.x + event.clientX - x, y: before.y + event.clientY - y });
    } else setHover(nearest(event));
  };
  const zoom = (factor) => setView((v) => ({ scale: Math.min(50, Math.max(0.5, v.scale * factor)), x: v.x * factor, y: v.y * factor }));
  const ask = async (at) => {
    try {
      const found = await api.query(name, { like: [records[at].id], k: 10, include: ["metadata", "vector"], ...(where ? { where } : {}) });
      setNear({ at, hits: found.hits });
    } catch (problem) {
      setError(problem);
    }
  };
  const released = (event) => {
    const far = drag.current?.far;
    drag.current = null;
    const found = far ? null : nearest(event);
    if (found) ask(found.at);
    else if (!far) setNear(null);
  };

  return html`
    <section class="controls map-controls">
      <${Field} label="Colour by"><select value=${chosen} onChange=${(e) => setField(e.target.value)}>
        ${fields.map((key) => html`<option value=${key} selected=${key === chosen}>${key}</option>`)}<option value="" selected=${chosen === ""}>nothing</option></select><//>
      <${Field} label="Records"><select value=${size} onChange=${(e) => setSize(e.target.value)}>${[500, 1500, 3000, 5000].map((number) => html`<option value=${number} selected=${number === Number(size)}>${count(number)}</option>`)}</select><//>
      <${Filter} name=${name} onChange=${setWhere} />
    </section>
    ${error && html`<${Note} kind="bad" title=${error.type}>${error.message}<//>`}
    ${!records && !error && html`<${Loading} />`}
    ${records?.length === 0 && html`<${Note}>No records to show.<//>`}
    ${projection &&
    html`<section class="panel map">
        <header>
          <span>${count(records.length)} records by chance</span>
          <span class="faint">the two axes hold ${(100 * (projection.shares[0] + projection.shares[1])).toFixed(0)} % of the variance</span>
          <span class="grow" />
          <${Button} kind="quiet" aria-label="Nearer" onClick=${() => zoom(1.4)}>+<//><${Button} kind="quiet" aria-label="Farther" onClick=${() => zoom(1 / 1.4)}>−<//>
          <${Button} onClick=${() => setVersion(version + 1)}>Another sample<//>
        </header>
        <div class="map-area">
          <canvas ref=${canvas} tabindex="0" role="img" aria-label="Map of the collection: hover shows metadata, a click finds neighbours"
            onPointerMove=${moved} onPointerLeave=${() => setHover(null)}
            onPointerDown=${(event) => (drag.current = { x: event.clientX, y: event.clientY, view })}
            onPointerUp=${released}
            onKeyDown=${(event) => ({ "+": () => zoom(1.4), "-": () => zoom(1 / 1.4) })[event.key]?.()}
            onWheel=${(event) => (event.preventDefault(), zoom(event.deltaY < 0 ? 1.15 : 1 / 1.15))} />
          ${hover && hover.at !== near?.at && html`<${Tip} record=${records[hover.at]} x=${hover.x} y=${hover.y} width=${canvas.current.clientWidth} />`}
        </div>
        <p class="legend">${colours.legend.map(([colour, words]) => html`<span><i class="dot" style=${{ background: colour }} />${words}</span>`)}</p>
      </section>
      ${near &&
      html`<section class="panel"><header><h2>Neighbours of ${short(idText(records[near.at].id), 40)}</h2><span class="grow" /><${Button} kind="quiet" icon="close" aria-label="Close" onClick=${() => setNear(null)} /></header>
        <ol class="plain">${near.hits.map((hit) => html`<li tabindex="0" data-row onClick=${() => setShown({ id: hit.id })} onKeyDown=${(e) => e.key === "Enter" && setShown({ id: hit.id })}>
          <span class="id">${short(idText(hit.id), 40)}</span> <span class="clip">${short(write(hit.metadata), 160)}</span><span class="grow" /><small>${hit.distance.toPrecision(4)}</small></li>`)}</ol></section>`}`}
    ${shown && html`<${RecordDialog} name=${name} id=${shown.id} onClose=${() => setShown(null)} />`}
  `;
};

// How good a field is to colour by: few different values, but more than one.
const spread = (records, key) => {
  const values = new Set(records.map((record) => write(valueOf(record, key) ?? null)));
  return values.size < 2 ? 1e9 : values.size;
};

// Above the point, or below it where there is no room; never beyond the sides.
const Tip = ({ record, x, y, width }) => html`<div class=${"tip " + (y < 190 ? "below" : "")} style=${{ left: `${Math.max(165, Math.min(width - 165, x))}px`, top: `${y}px` }}>
  <b class="id">${short(idText(record.id), 40)}</b>
  ${Object.entries(record.metadata ?? {}).slice(0, 8).map(([key, value]) => html`<div><b>${short(key, 30)}</b> ${short(typeof value === "string" ? value : write(value), 60)}</div>`)}
  ${record.text && html`<p>${short(record.text, 140)}</p>`}
</div>`;
