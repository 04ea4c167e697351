// Snapshots, checks, backups, compaction, and what the collection holds.
import { Answer, Button, Dialog, Field, Note, bytes, count, html, useAnswer, useEffect, useState } from "./ui.js";
import { api } from "./api.js";
import { write } from "./json.js";
import { Rows } from "./overview.js";

export const Keeping = ({ name }) => {
  const [version, setVersion] = useState(0);
  const [error, setError] = useState(null);
  const [confirm, setConfirm] = useState(null);
  const again = () => setVersion((value) => value + 1);
  const stats = useAnswer(() => api.stats(name), [name, version]);
  const snapshots = useAnswer(() => api.snapshots(name), [name, version]);
  const attempt = async (work) => {
    setError(null);
    try {
      await work();
    } catch (problem) {
      setError(problem);
    }
    again();
  };

  return html`
    ${error && html`<${Note} kind="bad" title=${error.type}>${error.message}<//>`}
    <section class="panel">
      <header><h2>What it holds</h2><span class="grow" /><${Button} onClick=${again}>Refresh<//></header>
      <${Answer} of=${stats}>${(found) => html`<${Holds} stats=${found} />`}<//>
    </section>
    <div class="columns">
      <section class="panel">
        <header><h2>Snapshots</h2></header>
        <${NewName} label="Name of a new snapshot" verb="Make" onName=${(snapshot) => attempt(() => api.makeSnapshot(name, snapshot))} />
        <${Answer} of=${snapshots}>
          ${(found) =>
            found.length
              ? html`<ul class="plain">${found.map(
                  (item) => html`<li data-row tabindex="0"><b>${item.name}</b><span class="faint">${count(item.count)} records, ${when(item.created_at)}</span><span class="grow" />
                    <${Button} onClick=${() => setConfirm({ words: `Bring the records of “${item.name}” back? Snapshots made since are kept, so this can be undone by one.`, verb: "Bring back", work: () => api.rollback(name, item.name) })}>Bring back<//>
                    <${Button} onClick=${() => setConfirm({ words: `Forget the snapshot “${item.name}”? Records that only it holds are given up with the next compaction.`, verb: "Forget", work: () => api.dropSnapshot(name, item.name) })}>Forget<//></li>`,
                )}</ul>`
              : html`<p class="faint">None. A snapshot costs next to nothing, and is a way back.</p>`}
        <//>
      </section>
      <section class="panel">
        <header><h2>Work</h2></header>
        <div class="row wrap">
          <${Button} kind="main" onClick=${() => attempt(() => api.begin(name, "check", {}))}>Check everything<//>
          <${Button} onClick=${() => attempt(() => api.begin(name, "check", { deep: false }))}>Quick check<//>
          <${Button} onClick=${() => attempt(() => api.begin(name, "compact"))}>Give space back<//>
        </div>
        <${NewName} label="Name of a new backup" verb="Back up" onName=${(backup) => attempt(() => api.begin(name, "backup", { name: backup }))} />
        <${Jobs} name=${name} version=${version} onEnd=${again} />
      </section>
    </div>
    ${confirm &&
    html`<${Dialog} title="Are you sure?" onClose=${() => setConfirm(null)}>
      <p>${confirm.words}</p>
      <div class="row end"><${Button} onClick=${() => setConfirm(null)}>Cancel<//><${Button} kind="main" onClick=${() => (setConfirm(null), attempt(confirm.work))}>${confirm.verb}<//></div>
    <//>`}
  `;
};

const when = (text) => new Date(text).toLocaleString();

const Holds = ({ stats }) => html`
  <${Rows} stats=${stats} />
  <dl class="figures wide">
    <div><dt>records</dt><dd>${count(stats.count)}</dd></div>
    <div><dt>versions</dt><dd>${count(stats.label_count)}</dd></div>
    <div><dt>on disk</dt><dd>${bytes(stats.disk_bytes)}</dd></div>
    <div><dt>could be given back</dt><dd>${bytes(stats.reclaimable_bytes)}</dd></div>
    <div><dt>log</dt><dd>${bytes(stats.log_bytes)}</dd></div>
    <div><dt>cache</dt><dd>${bytes(stats.cache_bytes)}</dd></div>
    <div><dt>lsn</dt><dd>${count(stats.lsn)}</dd></div>
    <div><dt>damaged vectors</dt><dd class=${stats.damaged_count ? "bad" : ""}>${stats.damaged_count}</dd></div>
  </dl>
  ${stats.segments.length > 0 &&
  html`<div class="scroll"><table><thead><tr><th>segment</th><th>kind</th><th class="n">rows</th><th class="n">live</th><th class="n">memory</th><th class="n">list for k = 10</th><th class="n">recall</th></tr></thead>
    <tbody>${stats.segments.map((item, at) => html`<tr><td>${at}</td><td>${item.kind}</td><td class="n">${count(item.row_count)}</td><td class="n">${count(item.live_count)}</td><td class="n">${bytes(item.size_bytes)}</td><td class="n">${item.ef_at_10}</td><td class="n">${item.recall.toFixed(4)}</td></tr>`)}</tbody></table></div>`}
  ${stats.indexed_fields.length > 0 && html`<p class="faint">Indexed fields: ${stats.indexed_fields.map((field) => html`<code>${field}</code> `)}</p>`}
  ${stats.notes.map((note) => html`<${Note} kind="warn">${note}<//>`)}
`;

const NewName = ({ label, verb, onName }) => {
  const [name, set] = useState("");
  const use = (event) => {
    event.preventDefault();
    if (name.trim()) onName(name.trim());
    set("");
  };
  return html`<form class="row" onSubmit=${use}><${Field} label=${label}><input value=${name} onInput=${(e) => set(e.target.value)} /><//><button class="button" type="submit" disabled=${!name.trim()}>${verb}</button></form>`;
};

const Jobs = ({ name, version, onEnd }) => {
  const [jobs, setJobs] = useState([]);
  const [error, setError] = useState(null);
  useEffect(() => {
    let stopped = false;
    let running = false;
    const look = async () => {
      try {
        const found = (await api.jobs()).filter((job) => job.collection === name);
        if (stopped) return;
        setJobs(found);
        setError(null);
        const busy = found.some((job) => job.state === "running" || job.state === "waiting");
        if (running && !busy) onEnd();
        running = busy;
        if (busy) setTimeout(look, 700);
      } catch (problem) {
        if (!stopped) setError(problem);
      }
    };
    look();
    return () => {
      stopped = true;
    };
  }, [name, version]);
  if (error) return html`<${Note} kind="bad" title=${error.type}>${error.message}<//>`;
  return html`<ul class="plain jobs">${jobs.slice(0, 8).map((job) => html`<li key=${job.id}><b>${job.kind}</b><span class=${"state " + ({ done: "good", failed: "bad" }[job.state] ?? "warn")}>${job.state}</span><${Result} job=${job} /></li>`)}</ul>`;
};

const Result = ({ job }) => {
  if (job.error) return html`<span class="bad">${job.error.message}</span>`;
  if (job.kind === "check" && Array.isArray(job.result))
    return job.result.length
      ? html`<ul class="problems">${job.result.map((problem) => html`<li><b>${problem.severity}</b> ${problem.kind} in <code>${problem.file}</code>: ${problem.message}</li>`)}</ul>`
      : html`<span class="faint">no problems</span>`;
  if (job.kind === "backup" && job.result) return html`<span class="faint">${job.result.path}: ${count(job.result.count)} records, ${bytes(job.result.size_bytes)}</span>`;
  if (job.result) return html`<span class="faint">${write(job.result)}</span>`;
  return null;
};
