// The component library, and the small parts that every view is made of.
export { html, render, useState, useEffect, useRef, useMemo, useCallback } from "./vendor/htm-preact.js";
import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";
import { write } from "./json.js";

const PATHS = {
  home: "M3 11 12 4l9 7M6 9.5V20h12V9.5",
  list: "M4 6h16M4 12h16M4 18h16",
  search: "M11 4a7 7 0 1 1 0 14 7 7 0 0 1 0-14m5.2 12.2L21 21",
  map: "M5 6h.01M9 14h.01M16 7h.01M19 16h.01M13 19h.01M12 11h.01",
  curve: "M4 20V4m0 16h16M6 17c3-9 6-10 13-11",
  pulse: "M3 12h4l3-8 4 16 3-8h4",
  shield: "M12 3 5 6v6c0 4.5 3 7.5 7 9 4-1.5 7-4.5 7-9V6z",
  key: "M14 10a4 4 0 1 1-3.5-4H11a4 4 0 0 1 3 4m0 0h7v3m-3-3v2",
  sun: "M12 8a4 4 0 1 1 0 8 4 4 0 0 1 0-8M12 3v1m0 16v1M3 12h1m16 0h1M5.6 5.6l.7.7m11.4 11.4.7.7m0-12.8-.7.7M6.3 17.7l-.7.7",
  close: "M6 6l12 12M18 6 6 18",
  plus: "M12 5v14M5 12h14",
  help: "M9 9a3 3 0 1 1 4.5 2.6c-1 .6-1.5 1.2-1.5 2.4m0 3h.01",
  menu: "M4 7h16M4 12h16M4 17h16",
};

export const Icon = ({ name }) => html`<svg class="icon" viewBox="0 0 24 24" aria-hidden="true"><path d=${PATHS[name]} /></svg>`;

export const Button = ({ kind = "", icon, children, ...rest }) =>
  html`<button type="button" class=${"button " + kind} ...${rest}>${icon && html`<${Icon} name=${icon} />`}${children}</button>`;

// A value in words: an error, nothing there, or still on its way.
export const Note = ({ kind = "", title, children }) =>
  html`<div class=${"note " + kind} role=${kind === "bad" ? "alert" : undefined}>${title && html`<strong>${title}</strong>`}<div>${children}</div></div>`;

export const Loading = () => html`<div class="loading" role="status" aria-label="Loading"><i /><i /><i /></div>`;

export const Field = ({ label, hint, children }) =>
  html`<label class="field"><span class="field-label">${label}${hint && html`<em>${hint}</em>`}</span>${children}</label>`;

// One of a few choices, as a row of buttons that arrow keys move through.
export const Choice = ({ label, value, options, onChange }) => {
  const move = (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const at = options.findIndex(([key]) => key === value);
    const next = options[(at + step + options.length) % options.length][0];
    onChange(next);
    event.currentTarget.querySelector(`[data-key="${next}"]`)?.focus();
  };
  return html`<div class="choice" role="radiogroup" aria-label=${label} onKeyDown=${move}>
    ${options.map(
      ([key, words]) => html`<button type="button" role="radio" data-key=${key} aria-checked=${key === value}
        tabindex=${key === value ? 0 : -1} onClick=${() => onChange(key)}>${words}</button>`,
    )}
  </div>`;
};

// The browser's own dialog: it keeps the focus inside, and Escape closes it.
export const Dialog = ({ title, kind = "", onClose, children }) => {
  const element = useRef(null);
  useEffect(() => {
    element.current.showModal();
  }, []);
  return html`<dialog class=${kind} ref=${element} aria-label=${title} onClose=${onClose}
    onClick=${(event) => event.target === element.current && onClose()}>
    <div class="dialog-inner">
      <header><h2>${title}</h2><${Button} kind="quiet" icon="close" aria-label="Close" onClick=${onClose} /></header>
      ${children}
    </div>
  </dialog>`;
};

// An answer of the server: { value, error, loading } of the newest call only.
export const useAnswer = (ask, dependencies) => {
  const [state, set] = useState({ loading: true });
  useEffect(() => {
    let current = true;
    set((before) => ({ ...before, loading: true }));
    ask().then(
      (value) => current && set({ value }),
      (error) => current && set({ error }),
    );
    return () => {
      current = false;
    };
  }, dependencies);
  return state;
};

export const Answer = ({ of, children }) => {
  if (of.error) return html`<${Note} kind="bad" title=${of.error.type}>${of.error.message}<//>`;
  if (of.value === undefined) return html`<${Loading} />`;
  return children(of.value);
};

// --- how values look ---------------------------------------------------------------------------------------

export const count = (value) => String(value).replace(/\B(?=(\d{3})+$)/g, "\u2009");
export const bytes = (value) => {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  let rest = Number(value);
  while (rest >= 1024 && at < units.length - 1) {
    rest /= 1024;
    at += 1;
  }
  return `${at && rest < 100 ? rest.toFixed(1) : Math.round(rest)} ${units[at]}`;
};
export const milliseconds = (value) => (value >= 100 ? `${Math.round(value)} ms` : `${value.toPrecision(3)} ms`);
export const decimal = (value) => (value === null || value === undefined ? "–" : Number(value).toPrecision(5));
export const idText = (id) => write(id);
export const short = (text, length = 120) => (text.length > length ? text.slice(0, length - 1) + "…" : text);

// Metadata as small labels: keys and values are text, whatever is in them.
export const Tags = ({ metadata, most = 6 }) => {
  const entries = Object.entries(metadata ?? {});
  return html`<span class="tags">${entries
    .slice(0, most)
    .map(([key, value]) => html`<span class="tag"><b>${short(key, 30)}</b>${short(typeof value === "string" ? value : write(value), 60)}</span>`)}${
    entries.length > most && html`<span class="tag more">+${entries.length - most}</span>`
  }</span>`;
};
