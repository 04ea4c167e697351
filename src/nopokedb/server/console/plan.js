// The plan of a query, drawn: what happened one after the other and how long it took, and how each part was searched.
import { bytes, count, html, milliseconds } from "./ui.js";

export const Plan = ({ plan }) => {
  const total = Math.max(plan.total_ms, 1e-6);
  let start = 0;
  const stages = plan.stages.map((stage) => {
    const found = { ...stage, start };
    start += stage.ms;
    return found;
  });
  return html`<section class="panel plan" aria-label="Plan of the query">
    <header><h2>Plan</h2><span class="grow" />
      <span>${plan.query}, k = ${plan.k}${plan.target_recall === null ? "" : `, for a recall of ${plan.target_recall}`}</span>
      <b>${milliseconds(plan.total_ms)}</b></header>
    <div class="timeline" role="list">
      ${stages.map(
        (stage, at) => html`<div class="stage" role="listitem" title=${`${stage.name}: ${stage.ms.toFixed(3)} ms`}>
          <span class="stage-name">${stage.name}</span>
          <span class="track"><i class=${`bar hue-${at % 6}`} style=${{ marginLeft: `${(100 * stage.start) / total}%`, width: `max(2px, ${(100 * stage.ms) / total}%)` }} /></span>
          <span class="stage-ms">${stage.ms.toFixed(3)}</span>
        </div>`,
      )}
    </div>
    ${plan.filter &&
    html`<p class="faint">Filter: ${count(plan.filter.match_count)} of ${count(plan.record_count)} records pass (${(100 * plan.filter.selectivity).toPrecision(3)} %)${plan.filter.cached ? ", known already" : ""};
      ${plan.filter.tests.map((test) => html` <code>${test.test}</code> from ${test.source}`)}</p>`}
    ${plan.searches.length > 0 &&
    html`<div class="scroll"><table>
      <thead><tr><th>part</th><th>index</th><th>searched by</th><th class="n">rows</th><th class="n">allowed</th><th class="n">list</th><th class="n">compared</th><th class="n">read</th><th class="n">ms</th><th>why</th></tr></thead>
      <tbody>${plan.searches.map(
        (search) => html`<tr><td>${search.part}</td><td>${search.kind}</td><td><span class=${"pill " + search.strategy}>${search.strategy}</span></td>
          <td class="n">${count(search.row_count)}</td><td class="n">${count(search.allowed_count)}</td><td class="n">${search.ef ?? "–"}</td>
          <td class="n">${count(search.candidates)}</td><td class="n">${bytes(search.bytes_read)}</td><td class="n">${search.ms.toFixed(3)}</td><td class="why">${search.why}</td></tr>`,
      )}</tbody></table></div>`}
  </section>`;
};
