// Recall against time, measured now on this collection: for lists of several lengths, for the default, and exactly.
import { Button, Field, Note, html, milliseconds, useMemo, useRef, useState } from "./ui.js";
import { api } from "./api.js";
import { pack, unpack } from "./json.js";
import { Chart } from "./chart.js";

const LISTS = [10, 20, 40, 80, 160, 320, 640];
const SLACK = 1e-9;
const TIMED = 40;

// Questions that are no records: points halfway between two records by chance, as measure_recall makes them.
const questions = (vectors) => {
  const half = Math.floor(vectors.length / 2);
  return vectors.slice(0, half).map((vector, at) => vector.map((value, i) => (value + vectors[half + at][i]) / 2));
};

const recallOf = (exact, found) => {
  const worst = exact.at(-1)?.distance;
  if (worst === undefined) return 1;
  return found.filter((hit) => hit.distance <= worst + SLACK * Math.abs(worst)).length / exact.length;
};
const median = (values) => values.sort((a, b) => a - b)[Math.floor(values.length / 2)];

export const RecallCurve = ({ name }) => {
  const [k, setK] = useState(10);
  const [size, setSize] = useState(50);
  const [points, setPoints] = useState([]);
  const [measured, setMeasured] = useState(null);
  const [progress, setProgress] = useState(null);
  const [error, setError] = useState(null);
  const stop = useRef(false);

  const run = async () => {
    stop.current = false;
    setError(null);
    setPoints([]);
    setMeasured(null);
    const found = [];
    try {
      setProgress({ at: 0, words: "taking records by chance" });
      const records = await api.sample(name, { size: 2 * Number(size), include: ["vector"], vector_format: "base64" });
      const asked = questions(records.map((record) => unpack(record.vector)));
      if (!asked.length) throw new Error("Expected at least two records to make questions of, found fewer.");
      const vectors = pack(asked);
      const answers = async (options) => (await api.query(name, { vectors, k: Number(k), include: [], ...options })).results.map((result) => result.hits);
      const exact = await answers({ target_recall: 1 });
      const ways = [
        ...LISTS.filter((list) => list >= k).map((ef) => ({ label: `list of ${ef}`, options: { ef } })),
        { label: "default", options: {}, kind: "default" },
        { label: "exact", options: { target_recall: 1 }, kind: "exact" },
      ];
      for (const [at, way] of ways.entries()) {
        if (stop.current) break;
        setProgress({ at: (at + 1) / (ways.length + 1), words: way.label });
        const hits = await answers(way.options);
        const times = [];
        for (const vector of asked.slice(0, TIMED)) times.push((await api.explain(name, { vector: pack([vector]), k: Number(k), include: [], ...way.options })).total_ms);
        const recall = exact.reduce((sum, true_, i) => sum + recallOf(true_, hits[i]), 0) / exact.length;
        found.push({ ...way, recall, ms: median(times) });
        setPoints([...found]);
      }
      if (!stop.current) {
        setProgress({ at: 0.97, words: "confidence" });
        setMeasured(await api.measureRecall(name, { sample: Math.max(20, Number(size)), k: Number(k) }));
      }
    } catch (problem) {
      setError(problem);
    }
    setProgress(null);
  };

  const data = useMemo(() => {
    const sorted = [...points].sort((a, b) => a.ms - b.ms);
    const pick = (kind) => sorted.map((point) => ((point.kind ?? "list") === kind ? point.recall : null));
    // What is worth having: the best recall that was reached within a time.
    let best = 0;
    const frontier = sorted.map((point) => (point.recall > best ? (best = point.recall) : null));
    return [sorted.map((point) => point.ms), frontier, pick("list"), pick("default"), pick("exact")];
  }, [points]);
  const low = Math.min(1, ...points.map((point) => point.recall));

  return html`
    <section class="controls">
      <${Field} label="k"><input type="number" min="1" max="100" value=${k} onInput=${(e) => setK(e.target.value)} /><//>
      <${Field} label="Questions" hint="points between two records"><input type="number" min="5" max="500" value=${size} onInput=${(e) => setSize(e.target.value)} /><//>
      ${progress ? html`<${Button} onClick=${() => (stop.current = true)}>Stop<//>` : html`<${Button} kind="main" onClick=${run}>Measure<//>`}
    </section>
    ${progress && html`<div class="progress" role="progressbar" aria-valuenow=${Math.round(100 * progress.at)}><i style=${{ width: `${100 * progress.at}%` }} /><span>${progress.words}</span></div>`}
    ${error && html`<${Note} kind="bad" title=${error.type ?? "Not measured"}>${error.message}<//>`}
    ${!points.length && !progress && !error && html`<${Note} title="How near, how fast">Asks questions with candidate lists of several lengths, compares the answers with exact search, and takes the server's own times (medians). It puts some load on the server for a few seconds.<//>`}
    ${points.length > 0 &&
    html`<section class="panel">
        <header><h2>Recall against time</h2><span class="grow" />${measured && html`<span>default: recall@${measured.k} <b>${measured.recall.toFixed(4)}</b> (${measured.low.toFixed(3)} to ${measured.high.toFixed(3)})</span>`}</header>
        <${Chart} label="Recall against milliseconds of a query" height=${320} data=${data}
          series=${[
            { label: "best within a time", colour: "--faint", dash: [5, 5], width: 1.5 },
            { label: "list of a length", colour: "--accent", points: true, width: 0 },
            { label: "default", colour: "--good", points: true, width: 0 },
            { label: "exact", colour: "--second", points: true, width: 0 },
          ]}
          x=${{ label: "milliseconds of a query (median)", values: (v) => String(Number(v.toPrecision(3))) }} y=${{ label: `recall@${k}`, values: (v) => v.toFixed(3) }}
          ranges=${{ y: { range: [Math.max(0, low - 0.02), 1.005] } }} />
        <div class="scroll"><table><thead><tr><th>candidates</th><th class="n">recall</th><th class="n">median</th></tr></thead>
          <tbody>${points.map((point) => html`<tr><td>${point.label}</td><td class="n">${point.recall.toFixed(4)}</td><td class="n">${milliseconds(point.ms)}</td></tr>`)}</tbody></table></div>
      </section>`}
  `;
};
