// Live charts, from the numbers that the server has for Prometheus.
import { Note, bytes, count, html, useEffect, useMemo, useState } from "./ui.js";
import { api } from "./api.js";
import { Chart } from "./chart.js";

const EVERY_MS = 2000;
const KEPT = 180;
const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)$/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;

// [{ name, labels, value }] of the text format.
export const parse = (text) => {
  const found = [];
  for (const line of text.split("\n")) {
    const match = line.startsWith("#") ? null : LINE.exec(line);
    if (!match) continue;
    const labels = {};
    for (const [, key, value] of (match[2] ?? "").matchAll(LABEL)) labels[key] = value.replace(/\\(.)/g, (_, c) => (c === "n" ? "\n" : c));
    found.push({ name: match[1], labels, value: Number(match[3]) });
  }
  return found;
};

const sum = (metrics, name, holds = () => true) =>
  metrics.reduce((total, metric) => (metric.name === name && holds(metric.labels) ? total + metric.value : total), 0);

// The console's own questions are not what one wants to see.
const OWN = new Set(["metrics", "readyz", "healthz", "none"]);
const counted = (labels) => !OWN.has(labels.operation);

const buckets = (metrics) => {
  const found = new Map();
  for (const { name, labels, value } of metrics)
    if (name === "nopokedb_request_seconds_bucket" && counted(labels)) found.set(Number(labels.le.replace("+Inf", "Infinity")), (found.get(Number(labels.le.replace("+Inf", "Infinity"))) ?? 0) + value);
  return found;
};

// A quantile of what came between two moments, in ms; within a bucket it is taken to be spread evenly, as Prometheus does.
export const quantile = (before, after, share) => {
  const steps = [...after].map(([le, value]) => [le, value - (before.get(le) ?? 0)]).sort((a, b) => a[0] - b[0]);
  const total = steps.at(-1)?.[1] ?? 0;
  if (!total) return null;
  let low = 0;
  let seen = 0;
  for (const [le, value] of steps) {
    if (value >= share * total) return 1000 * (le === Infinity ? low : low + ((le - low) * (share * total - seen)) / (value - seen || 1));
    low = le;
    seen = value;
  }
  return 1000 * low;
};

const difference = (before, after) => {
  const seconds = (after.at - before.at) / 1000;
  const rate = (name, holds) => Math.max(0, sum(after.metrics, name, holds) - sum(before.metrics, name, holds)) / seconds;
  const [old, now] = [buckets(before.metrics), buckets(after.metrics)];
  const syncs = rate("nopokedb_sync_count_total");
  const [hits, misses] = [rate("nopokedb_cache_hits_total"), rate("nopokedb_cache_misses_total")];
  return {
    time: after.at / 1000,
    requests: rate("nopokedb_requests_total", counted),
    failed: rate("nopokedb_requests_total", (labels) => counted(labels) && Number(labels.status) >= 500),
    p50: quantile(old, now, 0.5),
    p99: quantile(old, now, 0.99),
    sync: syncs ? (1000 * rate("nopokedb_sync_seconds_total")) / syncs : null,
    cached: hits + misses ? (100 * hits) / (hits + misses) : null,
  };
};

export const Live = () => {
  const [moments, setMoments] = useState([]);
  const [last, setLast] = useState(null);
  const [error, setError] = useState(null);

  useEffect(() => {
    let stopped = false;
    let before = null;
    const look = async () => {
      try {
        const now = { at: Date.now(), metrics: parse(await api.metrics()) };
        if (stopped) return;
        if (before) setMoments((all) => [...all.slice(1 - KEPT), difference(before.now, now)]);
        before = { now };
        setLast(now);
        setError(null);
      } catch (problem) {
        if (!stopped) setError(problem);
      }
      if (!stopped) setTimeout(look, EVERY_MS);
    };
    look();
    return () => {
      stopped = true;
    };
  }, []);

  const columns = useMemo(() => {
    const column = (key) => moments.map((moment) => moment[key]);
    return { rate: [column("time"), column("requests"), column("failed")], latency: [column("time"), column("p50"), column("p99")], sync: [column("time"), column("sync")], cache: [column("time"), column("cached")] };
  }, [moments]);
  const now = moments.at(-1);
  const total = (name) => (last ? sum(last.metrics, name) : 0);
  const ms = (value) => (value >= 10 ? value.toFixed(0) : String(Number(value.toPrecision(2))));

  return html`
    <div class="head"><h1>Live</h1><p class="facts"><span>every 2 seconds</span></p></div>
    ${error && html`<${Note} kind="bad" title=${error.type}>${error.message}<//>`}
    <dl class="figures wide">
      <div><dt>requests a second</dt><dd>${now ? now.requests.toFixed(1) : "…"}</dd></div>
      <div><dt>median</dt><dd>${now?.p50 != null ? `${ms(now.p50)} ms` : "–"}</dd></div>
      <div><dt>99 %</dt><dd>${now?.p99 != null ? `${ms(now.p99)} ms` : "–"}</dd></div>
      <div><dt>records</dt><dd>${last ? count(total("nopokedb_records")) : "…"}</dd></div>
      <div><dt>indexes</dt><dd>${last ? bytes(total("nopokedb_index_memory_bytes")) : "…"}</dd></div>
      <div><dt>open collections</dt><dd>${last ? total("nopokedb_collections_open") : "…"}</dd></div>
      <div><dt>free disk</dt><dd>${last ? bytes(total("nopokedb_disk_free_bytes")) : "…"}</dd></div>
    </dl>
    <div class="charts">
      <section class="panel"><header><h2>Requests a second</h2></header><${Chart} time label="Requests a second" data=${columns.rate} x=${{}} y=${{ values: ms }} ranges=${{ y: { range: zero } }} series=${[{ label: "all", colour: "--accent" }, { label: "failed", colour: "--bad" }]} /></section>
      <section class="panel"><header><h2>Latency, ms</h2></header><${Chart} time label="Latency in milliseconds" data=${columns.latency} x=${{}} y=${{ values: ms }} ranges=${{ y: { range: zero } }} series=${[{ label: "median", colour: "--accent" }, { label: "99 %", colour: "--second" }]} /></section>
      <section class="panel"><header><h2>Sync of the log, ms</h2></header><${Chart} time label="Milliseconds of a sync" data=${columns.sync} x=${{}} y=${{ values: ms }} ranges=${{ y: { range: zero } }} series=${[{ label: "sync", colour: "--accent" }]} /></section>
      <section class="panel"><header><h2>Records from the cache, %</h2></header><${Chart} time label="Share of records from the cache" data=${columns.cache} x=${{}} y=${{ values: ms }} ranges=${{ y: { range: [0, 105] } }} series=${[{ label: "cache", colour: "--good" }]} /></section>
    </div>
  `;
};

const zero = (_, low, high) => [0, Math.max(high * 1.1, 0.1)];
