// All collections at a glance: how many records, how large, how they are indexed, and whether they are sound.
import { Button, Loading, Note, bytes, count, html, useAnswer } from "./ui.js";
import { api } from "./api.js";
import { to } from "./nav.js";

export const Overview = ({ names, again }) => html`
  <div class="head"><h1>Collections</h1><span class="grow" /><${Button} onClick=${again}>Refresh<//></div>
  ${names.length
    ? html`<div class="cards">${names.map((name) => html`<${Card} key=${name} name=${name} />`)}</div>`
    : html`<${Note} title="No collections yet">
        Make one with a program or in a shell, for example
        <pre>nopokedb create collections/docs --embed wordllama{"\n"}nopokedb import texts.jsonl collections/docs</pre>
      <//>`}
`;

const Card = ({ name }) => {
  const answer = useAnswer(() => api.stats(name), [name]);
  const stats = answer.value;
  const link = (tab) => to("c", name, tab);
  return html`<article class="card">
    <header>
      <h2><a href=${link("records")} data-row>${name}</a></h2>
      ${stats && html`<${Health} stats=${stats} />`}
    </header>
    ${answer.error && html`<${Note} kind="bad" title=${answer.error.type}>${answer.error.message}<//>`}
    ${!stats && !answer.error && html`<${Loading} />`}
    ${stats &&
    html`
      <p class="big">${count(stats.count)}<small> records · ${stats.dim} dimensions · ${stats.space}</small></p>
      <${Rows} stats=${stats} />
      <dl class="figures">
        <div><dt>on disk</dt><dd>${bytes(stats.disk_bytes)}</dd></div>
        <div><dt>indexes</dt><dd>${bytes(stats.segments.reduce((sum, item) => sum + item.size_bytes, 0))}</dd></div>
        <div><dt>cache</dt><dd>${bytes(stats.cache_bytes)}</dd></div>
        <div><dt>log</dt><dd>${bytes(stats.log_bytes)}</dd></div>
      </dl>
      <footer>
        <a class="button" href=${link("query")}>Query</a><a class="button" href=${link("map")}>Map</a>
        <a class="button" href=${link("keep")}>Keep</a>
      </footer>
    `}
  </article>`;
};

const Health = ({ stats }) => {
  if (stats.damaged_count) return html`<span class="state bad">${stats.damaged_count} damaged vectors</span>`;
  if (stats.notes.length) return html`<span class="state warn" title=${stats.notes.join("\n")}>${stats.notes.length} notes</span>`;
  return html`<span class="state good">${stats.sealing ? "indexing" : "sound"}</span>`;
};

// The rows of the vectors file in order: what covers them, and how much of that is retired.
export const Rows = ({ stats }) => {
  const total = Math.max(1, stats.row_count);
  const parts = stats.segments.map((item) => ({ kind: item.kind, rows: item.row_count, live: item.live_count, more: item }));
  if (stats.tail_count) parts.push({ kind: "exact", rows: stats.tail_count, live: stats.tail_count });
  return html`<div class="rows" role="img" aria-label=${`${stats.segments.length} segments, ${stats.tail_count} rows without one`}>
      ${parts.map(
        (part) => html`<span class=${"part " + part.kind} style=${{ flexGrow: part.rows / total }}
          title=${`${part.kind}: ${count(part.rows)} rows, ${count(part.live)} live` + (part.more ? `, ${bytes(part.more.size_bytes)}, recall ${part.more.recall.toFixed(4)}` : ", compared exactly")}>
          <i style=${{ width: `${(100 * (part.rows - part.live)) / Math.max(1, part.rows)}%` }} />
        </span>`,
      )}
    </div>
    <p class="legend">
      ${[...new Set(parts.map((part) => part.kind))].map((kind) => html`<span><i class=${"part " + kind} />${kind}</span>`)}
      <span class="grow" /><span>${stats.segments.length} ${stats.segments.length === 1 ? "segment" : "segments"}</span>
    </p>`;
};
