// Ask: by text, by an example record, or by a vector that is pasted, under a filter; with the plan of the answer.
import { Button, Choice, Field, Loading, Note, Tags, decimal, html, idText, short, useEffect, useState } from "./ui.js";
import { api } from "./api.js";
import { passage, read, typedIds } from "./json.js";
import { Filter } from "./filter.js";
import { Plan } from "./plan.js";
import { RecordDialog } from "./record.js";

const vectorOf = (text) => {
  const trimmed = text.trim();
  const numbers = trimmed.startsWith("[") ? read(trimmed) : trimmed.split(/[\s,;]+/).filter(Boolean).map(Number);
  if (!Array.isArray(numbers) || numbers.some((value) => typeof value !== "number" || Number.isNaN(value)))
    throw new Error("Expected numbers, separated by commas or as a JSON list.");
  return numbers;
};

export const Query = ({ name, facts, rest }) => {
  const [by, setBy] = useState(rest ? "like" : "text");
  const [text, setText] = useState("");
  const [sides, setSides] = useState(facts.embed ? "both" : "words");
  const [fusion, setFusion] = useState("rrf");
  const [alpha, setAlpha] = useState(0.5);
  const [example, setExample] = useState(rest ?? "");
  const [vector, setVector] = useState("");
  const [words, setWords] = useState("");
  const [k, setK] = useState(10);
  const [recall, setRecall] = useState("");
  const [diversity, setDiversity] = useState("");
  const [where, setWhere] = useState(null);
  const [answer, setAnswer] = useState(null);
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState(false);
  const [shown, setShown] = useState(null);

  const question = () => {
    const body = { k: Number(k) };
    const bm25 = by === "text" ? (sides === "meaning" ? "" : text) : words;
    if (by === "text" && sides !== "words") body.vector = text;
    if (by === "like") body.like = typedIds(example);
    if (by === "vector") body.vector = vectorOf(vector);
    if (bm25.trim()) body.text = bm25;
    if (where) body.where = where;
    if (recall) body.target_recall = Number(recall);
    if (diversity) body.diversity = Number(diversity);
    if (hybrid && fusion === "weighted") Object.assign(body, { fusion, alpha: Number(alpha) });
    return body;
  };
  const hybrid = (by === "text" && sides === "both") || (by !== "text" && words.trim());

  const ask = async (event) => {
    event?.preventDefault();
    setBusy(true);
    setError(null);
    try {
      const body = question();
      const include = { include: ["metadata", "text"] };
      const found = await api.query(name, { ...body, ...include, ...(body.text ? { highlight: true } : {}) });
      // Afterwards: the first question after a write also makes the index of the texts, which is none of the plan.
      const plan = await api.explain(name, { ...body, ...include });
      setAnswer({ hits: found.hits, plan });
    } catch (problem) {
      setError(problem);
    }
    setBusy(false);
  };
  useEffect(() => {
    if (!rest) return;
    setBy("like");
    setExample(rest);
  }, [rest]);
  useEffect(() => {
    if (rest && example === rest && by === "like") ask();
  }, [rest, example, by]);

  return html`
    <form class="panel ask" onSubmit=${ask}>
      <div class="row">
        <${Choice} label="Ask by" value=${by} options=${[["text", "Text"], ["like", "Example"], ["vector", "Vector"]]} onChange=${setBy} />
        <span class="grow" />
        ${by === "text" && facts.embed && html`<${Choice} label="Search" value=${sides} options=${[["both", "Words and meaning"], ["words", "Words"], ["meaning", "Meaning"]]} onChange=${setSides} />`}
      </div>
      <div class="row ask-line">
        ${by === "text" && html`<input data-first class="grow large" type="search" aria-label="Text" placeholder=${facts.embed ? "what to look for" : 'words, "phrases", +must, -not, prefix*'} value=${text} onInput=${(e) => setText(e.target.value)} />`}
        ${by === "like" && html`<input data-first class="grow large" aria-label="Ids of examples" placeholder='ids, for example 17, "a-1"' value=${example} onInput=${(e) => setExample(e.target.value)} />`}
        ${by === "vector" && html`<textarea data-first class="grow" rows="3" spellcheck="false" aria-label="Vector" placeholder=${`${facts.dim} numbers: 0.1, 0.2, … or [0.1, 0.2, …]`} value=${vector} onInput=${(e) => setVector(e.target.value)} />`}
        <button class="button main" type="submit" disabled=${busy}>Search</button>
      </div>
      ${by !== "text" && html`<${Field} label="And words" hint="BM25; both sides are fused"><input value=${words} onInput=${(e) => setWords(e.target.value)} /><//>`}
      <div class="options">
        <${Field} label="k"><input type="number" min="1" max="1000" value=${k} onInput=${(e) => setK(e.target.value)} /><//>
        <${Field} label="Recall" hint="1 is exact"><input type="number" min="0.01" max="1" step="0.01" placeholder="0.99" value=${recall} onInput=${(e) => setRecall(e.target.value)} /><//>
        <${Field} label="Diversity" hint="0 to 1"><input type="number" min="0" max="1" step="0.1" placeholder="none" value=${diversity} onInput=${(e) => setDiversity(e.target.value)} /><//>
        ${hybrid &&
        html`<div class="field"><span class="field-label">Fused by</span><${Choice} label="Fused by" value=${fusion} options=${[["rrf", "Ranks"], ["weighted", "Scores"]]} onChange=${setFusion} /></div>
          ${fusion === "weighted" && html`<${Field} label="Weights" hint=${`words ${(1 - alpha).toFixed(2)} · vector ${Number(alpha).toFixed(2)}`}><input type="range" min="0" max="1" step="0.05" value=${alpha} onInput=${(e) => setAlpha(e.target.value)} /><//>`}`}
      </div>
      <${Filter} name=${name} onChange=${setWhere} />
    </form>
    ${error && html`<${Note} kind="bad" title=${error.type ?? "Not a question"}>${error.message}<//>`}
    ${busy && html`<${Loading} />`}
    ${answer &&
    html`<${Plan} plan=${answer.plan} />
      <h2 class="hits-head" aria-live="polite">${answer.hits.length} ${answer.hits.length === 1 ? "hit" : "hits"}</h2>
      <ol class="hits">${answer.hits.map((hit, at) => html`<${Hit} key=${idText(hit.id)} hit=${hit} rank=${at + 1} best=${answer.hits[0].score} onOpen=${() => setShown({ id: hit.id })} />`)}</ol>`}
    ${shown && html`<${RecordDialog} name=${name} id=${shown.id} onClose=${() => setShown(null)} />`}
  `;
};

const Hit = ({ hit, rank, best, onOpen }) => {
  const share = best > 0 ? Math.max(0, Math.min(1, hit.score / best)) : best < 0 ? Math.min(1, best / hit.score) : 1;
  return html`<li class="hit" tabindex="0" data-row onClick=${onOpen} onKeyDown=${(event) => event.key === "Enter" && onOpen()}>
    <span class="rank">${rank}</span>
    <div class="hit-body">
      <div class="row"><span class="id">${short(idText(hit.id), 60)}</span><${Tags} metadata=${hit.metadata} /></div>
      ${hit.highlight
        ? html`<p class="text">${passage(hit.highlight).map(({ bold, text }) => (bold ? html`<mark>${text}</mark>` : text))}</p>`
        : hit.text && html`<p class="text">${short(hit.text, 240)}</p>`}
    </div>
    <div class="score">
      <b>${decimal(hit.score)}</b>
      <span class="meter"><i style=${{ width: `${100 * share}%` }} /></span>
      <small>${hit.distance !== null && hit.distance !== undefined && `distance ${decimal(hit.distance)}`}
        ${"vector_rank" in hit && html`<br /><span title="rank by vector, rank by words">vector ${hit.vector_rank ?? "–"}, words ${hit.text_rank ?? "–"}</span>`}</small>
    </div>
  </li>`;
};
